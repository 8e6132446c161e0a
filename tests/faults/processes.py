"""Processes as the kernel shows them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def parent_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def state_of(pid: int) -> str | None:
    """The kernel's letter: `T` is stopped, `Z` dead and not collected yet. None: gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return None


def is_gone(pid: int) -> bool:
    return state_of(pid) in (None, "Z")
