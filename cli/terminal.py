"""What `millrace up` says to the person who started it."""

from __future__ import annotations

import contextlib
import sys


def say(line: str) -> None:
    """One line; when the terminal is gone, the stack goes on."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"millrace: {line}\n")
        sys.stdout.flush()
