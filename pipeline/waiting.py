"""Waiting for variants: however many requests of a process ask and wait, PostgreSQL sees one of each at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from uuid import UUID

from coordination.single_flight import SingleFlight
from core.errors import Unavailable
from core.model import Variant, VariantState

POLL_SECONDS = 0.05


class VariantWaits:
    """A thread polls for all waiters together, and only while there are any."""

    def __init__(self, states: Callable[[Collection[UUID]], Mapping[UUID, VariantState]]) -> None:
        self.asking = SingleFlight[Variant]()
        """Else a crowd's transactions on one row queue for its lock, each until the one before it is on disk."""
        self._states = states
        self._changed = threading.Condition()
        self._waiting: dict[UUID, int] = {}
        self._ended: dict[UUID, VariantState] = {}
        self._polling = False

    def wait(self, variant_id: UUID, seconds: float) -> VariantState:
        """Until the variant is ready or failed, at most `seconds`: then `PENDING`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._waiting[variant_id] = self._waiting.get(variant_id, 0) + 1
            self._ensure_polling()
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

    def _ensure_polling(self) -> None:
        if not self._polling:
            self._polling = True
            threading.Thread(target=self._poll, name="variant-waits", daemon=True).start()

    def _poll(self) -> None:
        while True:
            with self._changed:
                asked = [variant_id for variant_id in self._waiting if variant_id not in self._ended]
                if not self._waiting:
                    self._polling = False
                    return
            try:
                states = self._states(asked) if asked else {}
            except Unavailable:
                states = {}
            with self._changed:
                for variant_id in asked:
                    # A row that is gone was deleted with its asset: whoever waits looks again and sees that.
                    state = states.get(variant_id, VariantState.FAILED) if states else VariantState.PENDING
                    if state is not VariantState.PENDING and variant_id in self._waiting:
                        self._ended[variant_id] = state
                self._changed.notify_all()
            time.sleep(POLL_SECONDS)
