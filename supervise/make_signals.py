"""Ending with the `make` that started us.

GNU make passes TERM on to its children, but on INT it only waits for them: it counts on the terminal, which signals the
whole group. So when `kill -INT` hits make alone we look: make blocks INT while its handler waits. We also end when make
is gone, because what it started should not outlive it.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path


class MakeParent:
    def __init__(self) -> None:
        self._pid = os.getppid()
        self._is_make = _status(self._pid, "Name") in ("make", "gmake")

    def wants_us_to_end(self) -> bool:
        if not self._is_make:
            return False
        if os.getppid() != self._pid:
            return True
        blocked = _status(self._pid, "SigBlk")
        return bool(int(blocked or "0", 16) & 1 << (signal.SIGINT - 1))


def _status(pid: int, field: str) -> str:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^{field}:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""
