"""Waiting for variants: however many requests of a process ask and wait, PostgreSQL sees one of each at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from uuid import UUID

from coordination.single_flight import SingleFlight
from core.errors import Unavailable
from core.loops import Background
from core.model import Variant, VariantState

POLL_SECONDS = 0.05


class VariantWaits:
    """A thread polls for all waiters together, and rests while there are none."""

    def __init__(self, states: Callable[[Collection[UUID]], Mapping[UUID, VariantState]]) -> None:
        self.asking = SingleFlight[Variant]()
        """Else a crowd's transactions on one row queue for its lock, each until the one before it is on disk."""
        self._states = states
        self._changed = threading.Condition()
        self._waiting: dict[UUID, int] = {}
        self._ended: dict[UUID, VariantState] = {}
        self._poller = Background("variant-waits", self._poll, seconds=POLL_SECONDS, first=0, most_rest_seconds=1)

    def wait(self, variant_id: UUID, seconds: float) -> VariantState:
        """Until the variant is ready or failed, at most `seconds`: then `PENDING`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._waiting[variant_id] = self._waiting.get(variant_id, 0) + 1
            self._poller.start()
            self._changed.notify_all()
            try:
                while variant_id not in self._ended:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return VariantState.PENDING
                    self._changed.wait(left)
                return self._ended[variant_id]
            finally:
                self._leave(variant_id)

    def waited_for(self, variant_id: UUID) -> bool:
        with self._changed:
            return variant_id in self._waiting

    def _leave(self, variant_id: UUID) -> None:
        self._waiting[variant_id] -= 1
        if not self._waiting[variant_id]:
            del self._waiting[variant_id]
            self._ended.pop(variant_id, None)

    def _poll(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            asked = [variant_id for variant_id in self._waiting if variant_id not in self._ended]
        try:
            states = self._states(asked) if asked else {}
        except Unavailable:
            return
        with self._changed:
            for variant_id in asked:
                # A row that is gone was deleted with its asset: the request that waits looks again and sees that.
                state = states.get(variant_id, VariantState.FAILED)
                if state is not VariantState.PENDING and variant_id in self._waiting:
                    self._ended[variant_id] = state
            self._changed.notify_all()
