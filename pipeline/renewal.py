"""Keeps a lease alive while the work under it takes long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType

from core.errors import Unavailable
from pipeline.services import Services

log = logging.getLogger(__name__)


class Renewal:
    """Renews every `lease_renewal_seconds` from a thread of its own until it is left. A lease that is lost is only
    logged: the fence makes the late write change nothing."""

    def __init__(self, services: Services, renew: Callable[[], bool], what: Mapping[str, str]) -> None:
        """`renew` returns whether the lease is still ours; `what` names the work in the log."""
        self._seconds = services.settings.work.lease_renewal_seconds
        self._renew = renew
        self._what = what
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-renewal", daemon=True)

    def __enter__(self) -> Renewal:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._left.wait(self._seconds):
            try:
                ours = self._renew()
            except Unavailable:
                continue
            if not ours:
                log.warning("a lease was lost", extra=dict(self._what))
                return
