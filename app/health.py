"""What works right now. A look never waits long: each dependency is asked by a thread of its own, at most once a
second, and what has not answered in time is reported so while the thread goes on waiting."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coordination.broker import Broker
from core import troubles
from core.breaker import BreakerState
from core.errors import BrokerUnavailable, MillraceError, NotFound, Unavailable
from pipeline.rules.in_force import difference
from pipeline.services import Services
from pipeline.stores.failover import PROBE_KEY
from storage.interface import ObjectStore

FRESH_SECONDS = 1.0
PATIENCE_SECONDS = 0.5
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Finding:
    ok: bool
    detail: str


class Probe:
    """One dependency, and when it was last heard of."""

    def __init__(self, ask: Callable[[], str], breaker: Callable[[], BreakerState] | None = None) -> None:
        self._ask = ask
        self._breaker = breaker
        self._lock = threading.Lock()
        self._asking: threading.Event | None = None
        self._found = Finding(False, "not asked yet")
        self._at = float("-inf")

    def start(self) -> None:
        """Ask, unless somebody does or just did."""
        with self._lock:
            if self._asking is None and time.monotonic() - self._at > FRESH_SECONDS:
                self._asking = threading.Event()
                threading.Thread(target=self._run, args=(self._asking,), name="health", daemon=True).start()

    def finding(self, until: float) -> Finding:
        found = self._wait(until)
        if self._breaker is None:
            return found
        return Finding(found.ok, f"{found.detail}; circuit breaker: {self._breaker()}")

    def _wait(self, until: float) -> Finding:
        asking = self._asking
        if asking is not None and not asking.wait(max(0.0, until - time.monotonic())):
            return Finding(False, f"no answer within {PATIENCE_SECONDS:g} s")
        return self._found

    def _run(self, done: threading.Event) -> None:
        try:
            found = Finding(True, self._ask())
        except MillraceError as error:
            found = Finding(False, error.detail)
        except Exception as error:  # noqa: BLE001 - whatever a dependency does, the others are still reported
            found = Finding(False, type(error).__name__)
        with self._lock:
            self._found, self._at, self._asking = found, time.monotonic(), None
        done.set()


class Health:
    def __init__(self, services: Services) -> None:
        self._probes: Mapping[str, Probe] = {
            "staging": Probe(lambda: _staging(services)),
            "postgres": Probe(lambda: _postgres(services)),
            "redis": Probe(_redis(services)),
            **{f"store:{name}": _store(store) for name, store in services.stores.items()},
            "background": Probe(lambda: _background(services)),
            "queues": Probe(lambda: _queues(services)),
        }

    def look(self) -> tuple[Mapping[str, Finding], Mapping[str, bool]]:
        """The dependencies, and the capabilities that follow from them."""
        for probe in self._probes.values():
            probe.start()
        until = time.monotonic() + PATIENCE_SECONDS
        found = {name: probe.finding(until) for name, probe in self._probes.items()}
        read = found["postgres"].ok and any(one.ok for name, one in found.items() if name.startswith("store:"))
        return found, {"accept": found["staging"].ok, "read": read}


def _staging(services: Services) -> str:
    services.staging.check_usable()
    return f"durability: {services.staging.durability.value}"


def _background(services: Services) -> str:
    """Report the loops of this host that keep failing. Details are for its operator: `millrace doctor` and the log."""
    found = troubles.known(services.settings.troubles_path)
    if found:
        raise Unavailable("; ".join(one.summary for one in found[:SHOWN]) + ("; …" if found[SHOWN:] else ""))
    return "all turns"


def _queues(services: Services) -> str:
    """Report queues of the fleet and of this host that no process reads. Requests go on: what waits is done later."""
    found = services.metadata.readers.unread(services.staging.host_id)
    if found:
        raise Unavailable("; ".join(one.summary for one in found))
    return "each is read"


def _postgres(services: Services) -> str:
    services.metadata.ping()
    other = difference(services.metadata.rules, services.rules)
    return "answers" if other is None else f"answers; {other}: see `millrace storage apply-rules`"


def _redis(services: Services) -> Callable[[], str]:
    url = services.settings.redis_url
    if url is None:
        return _not_configured
    broker = Broker(url, seconds=PATIENCE_SECONDS)

    def ask() -> str:
        broker.ping()
        return "answers"

    return ask


def _not_configured() -> str:
    raise BrokerUnavailable("redis_url is not set")


def _store(store: ObjectStore) -> Probe:
    """Return a probe: a store answers that a key is not there only if it is the one that this installation filled."""

    def ask() -> str:
        with contextlib.suppress(NotFound):
            store.head(PROBE_KEY)
        return "answers"

    return Probe(ask, lambda: store.breaker)
