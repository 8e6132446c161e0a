"""This host's clock, which may be wrong: all readings of the wall clock are made here.

Nothing may rest on it but what this host alone decides, and there a time that lies beyond reason counts as over. What
hosts compare with each other is PostgreSQL's time (`metadata/times.py`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from core import failpoints


def now() -> datetime:
    return datetime.now(UTC) + failpoints.clock_ahead()


def age(moment: float) -> float:
    """Return the seconds since a time of the file system. One in the future was written by a clock that was wrong, and
    counts as old as it is far away."""
    return abs(time.time() - moment)
