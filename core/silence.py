"""Whether a server is silent at this moment, seen by calls that should have been answered by now.

A breaker counts calls that have failed, and a call to a server that hangs fails only when its time-outs have passed,
which may take minutes. Here it shows while they wait: what else would go there can go elsewhere, or come again later.
It condemns nothing. One answer ends it, and while it lasts threads of its own ask for one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import Archived, Forbidden, MillraceError, Unavailable

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
LOOKS = 3
"""That are on their way at most: each may hang as long as a call does."""


class Silence:
    """Safe for threads. `look` asks the server for anything: an answer is an answer, also an error that says no."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._due: dict[object, float] = {}
        """By when each call that is on its way should have its answer."""
        self._heard_at = float("-inf")
        self._failed_late = False
        self._looks = 0
        self._looked_at = float("-inf")

    @contextmanager
    def call(self, patience: float) -> Iterator[None]:
        """A call that should be answered within so many seconds."""
        token, due = object(), time.monotonic() + patience
        with self._lock:
            self._due[token] = due
        try:
            yield
        except (Archived, Forbidden):
            self._heard()
            raise
        except Unavailable:
            with self._lock:
                self._failed_late = self._failed_late or self._is_late(due)
            raise
        except MillraceError:
            self._heard()
            raise
        else:
            self._heard()
        finally:
            with self._lock:
                del self._due[token]

    def lasts(self, calls: int = 1, *, patience: float = 0) -> bool:
        """Are so many calls late, or did a late one fail, and nothing was heard since? A look that began less than
        `patience` seconds ago is waited for until then."""
        while self._lasts(calls):
            if time.monotonic() >= self._looked_at + patience:
                return True
            time.sleep(0.01)
        return False

    def _lasts(self, calls: int) -> bool:
        with self._lock:
            lasts = self._failed_late or sum(map(self._is_late, self._due.values())) >= calls
            now = time.monotonic()
            looks = lasts and self._looks < LOOKS and now - self._looked_at >= LOOK_EVERY
            if looks:
                self._looks += 1
                self._looked_at = now
        if looks:
            threading.Thread(target=self._ask, name="silence", daemon=True).start()
        return lasts

    def _is_late(self, due: float) -> bool:
        return self._heard_at < due < time.monotonic()

    def _heard(self) -> None:
        with self._lock:
            self._heard_at = time.monotonic()
            self._failed_late = False

    def _ask(self) -> None:
        try:
            self._look()
        except (Archived, Forbidden):
            self._heard()
        except Unavailable:
            pass
        except MillraceError:
            self._heard()
        except Exception:
            log.exception("a look at a silent server failed unexpectedly")
        else:
            self._heard()
        finally:
            with self._lock:
                self._looks -= 1
