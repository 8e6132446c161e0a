"""What the contract's tests must know of a backend, and the order that each test leaves behind: whatever it put is
deleted at its end, and then nothing may be left, neither objects nor, where the backend can tell (`residue`),
unfinished ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import pytest

from storage.interface import ObjectStore
from tests.contracts.object_store.use import MIB, keys

LEGAL_KEYS: Sequence[str] = [
    "a",
    "ab",
    "abc",
    "abcd",
    "abcde",
    "a-b",
    "a.b",
    "a/b",
    "a/bc",
    "a/b/c",
    "a0",
    "A",
    "_",
    "-",
    "...",
    "..a/.b",
    ".hidden",
    "9/8/7/6/5/4/3/2/1",
    "f" * 200,
    "f" * 201,
    "f" * 200 + "..",
    "f" * 255 + "/" + "f" * 256,
    "x/" * 255 + "xx",
    "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b.17",
]


class Backend:
    part_size: ClassVar[int] = 5 * MIB
    """Where the backend cuts large bodies, so that the tests meet both sides of it."""

    keeps_bytes_in_memory: ClassVar[bool] = False

    legal_keys: ClassVar[Sequence[str]] = LEGAL_KEYS
    """Fewer where a foreign service cannot hold all of them, but `a/b` is always one."""

    creates_conditionally: ClassVar[bool] = True
    """False: of writers that race with different bytes for one key the last one may win. Millrace names objects by
    their bytes, so it never races like that."""

    tells_age_of_unfinished: ClassVar[bool] = True
    """False: the service behind the store gives uploads that are on their way a wrong age, so they are not swept."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError("the backend's test gives one")

    @pytest.fixture
    def residue(self) -> Callable[[], list[str]]:
        """What a store still has beside objects: temporary files, unfinished uploads."""
        return list

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, store: ObjectStore, residue: Callable[[], list[str]]) -> Iterator[None]:
        yield
        assert residue() == []
        store.delete(keys(store))
        assert keys(store) == []
