"""The fault suite on hosts whose clocks are an hour ahead of PostgreSQL's, and a year behind it."""

from __future__ import annotations

import os
import subprocess
import sys

FAULTS = "tests/faults"
AHEAD = (3600, -365 * 86_400)


def run(minutes: float, seed: int) -> list[str]:
    del minutes, seed  # it has an end of its own, and leaves nothing to chance
    command = [sys.executable, "-m", "pytest", "-q", FAULTS]
    return [
        f"with clocks {ahead} s ahead: {' '.join(command)}"
        for ahead in AHEAD
        if subprocess.run(command, env={**os.environ, "STACK_CLOCK_AHEAD": str(ahead)}, check=False).returncode
    ]
