"""What tests see of running processes: their descendants, what belongs to a home, whether they are gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervise.processes import Identity


def descendants(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [found for child in map(int, text.split()) for found in (child, *descendants(child))]


def running_in(home: Path) -> Iterator[int]:
    """Processes whose environment names this home."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MILLRACE_HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def identities(pids: Iterable[int]) -> list[Identity]:
    return [found for pid in pids if (found := Identity.of(pid))]


def all_gone(processes: list[Identity], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(process.is_alive() for process in processes):
            return True
        time.sleep(0.02)
    return False
