"""Descendants whose own parent died. We are the subreaper, so they become our children, and we end them: nothing that
`millrace up` started goes on without the process that was to look after it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path


def reap(known: Collection[int]) -> None:
    """Collect the exit of every dead child except the known ones, whose owner waits for them itself."""
    for pid in _children():
        if pid not in known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def end(known: Collection[int], *, seconds: float = 5) -> None:
    """Kill every child except the known ones, and theirs in turn, and return when they are gone."""
    deadline = time.monotonic() + seconds
    while orphans := [pid for pid in _children() if pid not in known]:
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap(known)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def session_members(session: int) -> Iterator[int]:
    for pid in _pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session:
                yield pid


def working_in(directory: Path) -> Iterator[int]:
    """Processes whose working directory it is."""
    here = directory.stat()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if os.path.samestat(Path(f"/proc/{pid}/cwd").stat(), here):
                yield pid


def _children() -> list[int]:
    try:
        lists = [Path(f"/proc/self/task/{thread}/children").read_text() for thread in os.listdir("/proc/self/task")]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        me = str(os.getpid())
        return [pid for pid in _pids() if _parent(pid) == me]
    return [int(pid) for pids in lists for pid in pids.split()]


def _parent(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[1]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
