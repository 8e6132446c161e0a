"""What `MILLRACE_HOME/run` looks after beside processes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervise.run_directory import RunDirectory, in_memory


@pytest.mark.parametrize(("free", "memory"), [(64 << 20, False), (2 << 30, True)])
def test_a_temporary_home_is_where_there_is_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, memory: bool
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free >> 12, f_frsize=1 << 12))
    monkeypatch.setattr("supervise.run_directory._MEMORY", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    (tmp_path / "run").mkdir()
    with RunDirectory(tmp_path).temporary_home() as home:
        assert in_memory(home) is memory
        assert (tmp_path / "run" / "ephemeral").read_text() == str(home)
    assert not home.exists()
