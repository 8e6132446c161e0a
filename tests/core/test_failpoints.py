from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from core import failpoints


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(failpoints, "_DIRECTORY", str(tmp_path))
    return tmp_path


def test_nothing_happens_unless_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.step").write_text("errno EIO")
    failpoints.failpoint("a.step")


def test_an_armed_point_fires_once_and_says_so(armed: Path) -> None:
    (armed / "a.step").write_text("errno ENOSPC")
    with pytest.raises(OSError, match="No space left"):
        failpoints.failpoint("a.step")
    assert (armed / "a.step.fired").exists()
    failpoints.failpoint("a.step")


def test_one_subject_of_many_can_be_hit_every_time(armed: Path) -> None:
    (armed / "a.step@one").write_text("errno EIO\nalways")
    failpoints.failpoint("a.step", "two")
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            failpoints.failpoint("a.step", "one")


def test_a_pause_and_an_unknown_action(armed: Path) -> None:
    (armed / "a.step").write_text("sleep 0.05")
    started = time.monotonic()
    failpoints.failpoint("a.step")
    assert time.monotonic() - started >= 0.05
    (armed / "a.step").write_text("dance")
    with pytest.raises(ValueError, match="dance"):
        failpoints.failpoint("a.step")


def test_a_kill_is_a_kill(tmp_path: Path) -> None:
    (tmp_path / "a.step").write_text("kill")
    code = "from core.failpoints import failpoint; failpoint('a.step'); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MILLRACE_FAILPOINTS": str(tmp_path)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (-9, b"")
