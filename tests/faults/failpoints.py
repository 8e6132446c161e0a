"""Which failpoints there are, read from the sources, so that a new one is killed at without anybody listing it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("app", "cli", "coordination", "core", "imaging", "metadata", "pipeline", "storage", "tasks")
CALL = re.compile(r"""\bfailpoint\(\s*f?"([^"]+)\"""")

FOLDERS = ("accepted", "quarantine", "trash")
"""What `staging.move-to-…` stands for (`storage/staging/folders.py`)."""

ELSEWHERE = {
    "copies.before-write": "tests/storage/test_local_copies.py",
    "copies.before-rename": "tests/storage/test_local_copies.py",
    "s3.before-put": "tests/storage/test_s3_kills.py",
    "s3.after-put": "tests/storage/test_s3_kills.py",
    "s3.before-complete": "tests/storage/test_s3_kills.py",
    "host.before-link": "tests/storage/staging/test_processes.py",
    "alone.start": "tests/pipeline/test_derive.py",
}
"""Not on the way of a stack with a filesystem store that runs already: fired by the tests of their rooms."""


def named() -> list[str]:
    found: set[str] = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            found.update(CALL.findall(path.read_text()))
    return sorted(name for one in found for name in _spelled_out(one))


def _spelled_out(name: str) -> list[str]:
    before, brace, _ = name.partition("{")
    return [before + folder for folder in FOLDERS] if brace else [name]
