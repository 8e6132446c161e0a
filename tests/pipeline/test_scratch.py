from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import Unavailable
from pipeline.scratch import remove_leftovers, scratch

LONG_AGO = 1_000_000_000

KILLED = """
import os, sys
from pathlib import Path
from pipeline.scratch import scratch
with scratch(Path(sys.argv[1])) as directory:
    (directory / "x").write_text("x")
    os.kill(os.getpid(), 9)
"""


def test_a_scratch_directory_is_gone_at_the_end(tmp_path: Path) -> None:
    with scratch(tmp_path / "below") as directory:
        (directory / "file").write_text("x")
    assert list((tmp_path / "below").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    [left] = list(tmp_path.iterdir())
    assert remove_leftovers(tmp_path) == 0, "it may be new and not locked yet"
    os.utime(left, (LONG_AGO, LONG_AGO))
    with scratch(tmp_path) as used:
        os.utime(used, (LONG_AGO, LONG_AGO))
        assert remove_leftovers(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [used]


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(Unavailable), scratch(tmp_path / "file" / "below"):
        pass
