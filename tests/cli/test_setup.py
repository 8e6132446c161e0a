"""What `make setup` says where it cannot work, and that it is free when nothing is due."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "requirements" / "setup.sh"


def setup(tmp_path: Path, python: str) -> subprocess.CompletedProcess[str]:
    words = [str(SCRIPT), str(tmp_path / "venv"), str(tmp_path / "stamp"), python]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def fake_python(tmp_path: Path, *, suits: bool) -> str:
    path = tmp_path / "python"
    path.write_text(
        "#!/bin/bash\n"
        f'case "$*" in *"<= (3, 13)"*) exit {0 if suits else 1};; *ensurepip*) exit 1;; *version_info*) echo 3.11;;'
        " *) echo Python 3.10.1;; esac\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("suits", "words"), [(True, "apt install python3.11-venv"), (False, "is not Python 3.11, 3.12 or 3.13")]
)
def test_an_interpreter_that_cannot_do_it_gives_one_clear_line(tmp_path: Path, suits: bool, words: str) -> None:
    done = setup(tmp_path, fake_python(tmp_path, suits=suits))
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "venv").exists()


def test_nothing_is_done_when_nothing_is_due(tmp_path: Path) -> None:
    (tmp_path / "stamp").touch()
    assert setup(tmp_path, "/no/such/python").returncode == 0
    os.utime(tmp_path / "stamp", (0, 0))
    assert "no such command" in setup(tmp_path, "/no/such/python").stderr


def test_every_requirement_is_pinned_with_its_hash_and_no_index_is_named() -> None:
    for lock in ("build.txt", "lock.txt", "postgres.txt"):
        text = (ROOT / "requirements" / lock).read_text()
        entries = re.split(r"\n(?=\S)", text.strip())
        assert all(re.match(r"[A-Za-z0-9._-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
        assert "://" not in text
