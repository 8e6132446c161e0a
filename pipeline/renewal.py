"""Keeps leases alive while their variants are rendered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType

from core.errors import Unavailable
from core.model import LeasedVariant
from pipeline.services import Services

log = logging.getLogger(__name__)


class Renewal:
    """Renews every `lease_renewal_seconds` from a thread of its own until it is left. A lease that is lost is only
    logged: the fence makes the late write change nothing."""

    def __init__(self, services: Services, leased: Sequence[LeasedVariant]) -> None:
        self._services = services
        self._leased = leased
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-renewal", daemon=True)

    def __enter__(self) -> Renewal:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._left.set()
        self._thread.join()

    def _run(self) -> None:
        work = self._services.settings.work
        lease = timedelta(seconds=work.lease_seconds)
        while not self._left.wait(work.lease_renewal_seconds):
            try:
                ours = self._services.metadata.variants.renew(self._leased, lease)
            except Unavailable:
                continue
            if len(ours) < len(self._leased):
                log.warning("a lease was lost", extra={"source": self._leased[0].source.hex()})
                return
