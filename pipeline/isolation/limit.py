"""How long an attempt may take, in a process of its own or not."""

from __future__ import annotations

from datetime import timedelta

from core.settings import Settings


def limit(configured: Settings, size: int) -> timedelta:
    """Return the time an attempt on `size` bytes may take."""
    work = configured.work
    return timedelta(seconds=work.solo_seconds + size / work.solo_bytes_per_second)
