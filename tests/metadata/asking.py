"""The least that can be asked of PostgreSQL, and a wait until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, text


def ping(connection: Connection) -> int:
    found: int = connection.scalar(text("SELECT 1"))
    return found


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)
