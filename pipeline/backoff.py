"""How long to wait before the next try."""

from __future__ import annotations

import random
from datetime import timedelta

from core.settings import Settings


def backoff(settings: Settings, attempts: int) -> timedelta:
    """Doubling from `backoff_seconds` up to `backoff_cap_seconds`, half of it jitter: a fleet that lost its database
    together must not come back together."""
    work = settings.work
    ceiling = min(work.backoff_cap_seconds, work.backoff_seconds * 2 ** min(max(attempts - 1, 0), 16))
    return timedelta(seconds=ceiling * (0.5 + random.random() / 2))
