"""Keeps a lease alive while the work under it takes long."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import TracebackType

from core.errors import Unavailable
from core.loops import Background
from pipeline.services import Services

log = logging.getLogger(__name__)


class Renewal:
    """Renews every `lease_renewal_seconds` from a thread of its own until it is left. A lease that is lost is only
    logged: the fence makes the late write change nothing."""

    def __init__(self, services: Services, renew: Callable[[], bool], what: Mapping[str, str]) -> None:
        """`renew` returns whether the lease is still ours; `what` names the work in the log."""
        seconds = services.settings.work.lease_renewal_seconds
        self._renew = renew
        self._what = what
        self._thread = Background("lease-renewal", self._turn, seconds=seconds, most_rest_seconds=seconds)

    def __enter__(self) -> Renewal:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.close()

    def _turn(self) -> None:
        try:
            ours = self._renew()
        except Unavailable:
            return
        if not ours:
            log.warning("a lease was lost", extra=dict(self._what))
            self._thread.stop()
