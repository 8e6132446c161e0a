"""In one process: however many threads want the same thing at once, one does the work and all have what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def do(self, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` returned or raised, here or in the thread that was at it already. Nothing is kept after it ended:
        whoever comes later works anew."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                leads, flight = True, Future[T]()
                self._flights[key] = flight
            else:
                leads = False
        if leads:
            try:
                flight.set_result(work())
            except BaseException as error:
                flight.set_exception(error)
                raise
            finally:
                with self._lock:
                    del self._flights[key]
        return flight.result()
