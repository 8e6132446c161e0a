"""What PostgreSQL says of the stores: active, read-only or draining."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from core.errors import Unavailable
from core.model import StoreState
from metadata.facade import Metadata

STATES_SECONDS = 1.0


class StoreStates:
    """What was said of stores, asked for at most once in `STATES_SECONDS`; while PostgreSQL is away, what it said last.
    Plans are made by it and nothing is decided. Safe for threads."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._known: Mapping[str, StoreState] = {}
        self._fresh_until = float("-inf")

    def __call__(self) -> Mapping[str, StoreState]:
        if time.monotonic() >= self._fresh_until:
            with suppress(Unavailable):
                self._known = self._metadata.stores.states()
                self._fresh_until = time.monotonic() + STATES_SECONDS
        return self._known

    def forget(self) -> None:
        """Ask anew at the next call."""
        self._fresh_until = float("-inf")
