"""The memory store against the contract."""

from __future__ import annotations

import pytest

from storage.interface import ObjectStore
from storage.memory import MemoryOptions, MemoryStore
from tests.contracts.object_store import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    keeps_bytes_in_memory = True

    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore("main", MemoryOptions())
