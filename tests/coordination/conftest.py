from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.coordination.server import OwnServer

_numbers = itertools.count()


@pytest.fixture
def own_server(tmp_path: Path, services_directory: Path) -> OwnServer:
    return OwnServer(tmp_path / "valkey", services_directory / f"own-{next(_numbers)}", tmp_path / "valkey.log")
