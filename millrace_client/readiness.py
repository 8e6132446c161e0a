"""Watching accepted uploads until each is ready or failed, without pestering the service.

There is no call that asks for many at once, and work is done about in the order it came. So only the oldest few are
asked about, each with growing pauses; one that takes long lets younger ones be asked about meanwhile. However many
wait, there are at most `WINDOW` questions at a time, and `WATCHED` uploads that are asked about at all.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import httpx

from millrace_client.errors import ServiceGone
from millrace_client.http import LATER, Refusal, retry_after

WINDOW = 32
WATCHED = 256
SLOW = 5
"""So many times asked: it no longer keeps a younger one waiting."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ended:
    """`refusal` is None when it is ready with all its variants."""

    upload_id: str
    refusal: Refusal | None = None


@dataclass(order=True, slots=True)
class _Watched(Generic[T]):
    due: float
    number: int
    subject: T = field(compare=False)
    upload_id: str = field(compare=False)
    link: str = field(compare=False)
    asked: int = field(default=0, compare=False)


class Readiness(Generic[T]):
    def __init__(
        self,
        client: httpx.Client,
        conclude: Callable[[T, Ended], None],
        stop: threading.Event,
        patience_seconds: float,
    ) -> None:
        self._client = client
        self._conclude = conclude
        self._stop = stop
        self._patience_seconds = patience_seconds
        self._numbers = itertools.count()
        self._fresh: deque[_Watched[T]] = deque()
        self._watched: list[_Watched[T]] = []
        self._slow = 0
        self._complete = threading.Event()
        self._last_answer = time.monotonic()

    def add(self, subject: T, upload_id: str, link: str) -> None:
        """From any thread."""
        due = time.monotonic() + FIRST_PAUSE_SECONDS
        self._fresh.append(_Watched(due, next(self._numbers), subject, upload_id, link))

    def finish(self) -> None:
        """Nothing will be added any more: `watch` returns when all have ended."""
        self._complete.set()

    def watch(self) -> None:
        """
        Raises:
            ServiceGone: no answer that says anything of an upload for longer than patience allows.
        """
        while not self._stop.is_set():
            complete = self._complete.is_set()  # before looking: what was added before it is seen below
            self._fill()
            if not self._watched:
                if complete:
                    return
                self._last_answer = time.monotonic()  # nobody was asked
                self._stop.wait(FIRST_PAUSE_SECONDS / 2)
                continue
            pause = self._watched[0].due - time.monotonic()
            if pause > 0:
                self._stop.wait(min(pause, FIRST_PAUSE_SECONDS))
                continue
            self._ask(heapq.heappop(self._watched))

    def _fill(self) -> None:
        while self._fresh and len(self._watched) < WATCHED and len(self._watched) - self._slow < WINDOW:
            heapq.heappush(self._watched, self._fresh.popleft())

    def _ask(self, one: _Watched[T]) -> None:
        if one.asked >= SLOW:
            self._slow -= 1
        ended, pause = self._look(one)
        if ended is not None:
            self._conclude(one.subject, ended)
            return
        one.asked += 1
        if one.asked >= SLOW:
            self._slow += 1
        one.due = time.monotonic() + max(pause, min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**one.asked))
        heapq.heappush(self._watched, one)

    def _look(self, one: _Watched[T]) -> tuple[Ended | None, float]:
        """What is known of it, or how long the service wants us to wait."""
        try:
            answer = self._client.get(one.link)
        except httpx.TransportError as error:
            self._require_patience(str(error))
            return None, FIRST_PAUSE_SECONDS
        if answer.status_code in LATER:
            self._require_patience(Refusal.of(answer).detail)
            return None, retry_after(answer.headers.get("Retry-After"))
        self._last_answer = time.monotonic()
        if answer.status_code != HTTPStatus.OK:
            return Ended(one.upload_id, Refusal.of(answer)), 0
        return _ended(one.upload_id, answer.json()), 0

    def _require_patience(self, problem: str) -> None:
        if time.monotonic() - self._last_answer > self._patience_seconds:
            raise ServiceGone(f"no answer for {self._patience_seconds:g} s ({problem})") from None


def _ended(upload_id: str, said: dict[str, Any]) -> Ended | None:
    """An asset that is stored while one of its eager variants failed is not what was asked for: that is told too."""
    if said["state"] == "failed":
        return Ended(upload_id, _refusal(said["failure"]))
    if said["state"] != "ready":
        return None
    failed = [one for one in said["variants"] if one["state"] == "failed"]
    if not failed:
        return Ended(upload_id)
    why = "; ".join(f"{one['profile'] or one['id']}: {_refusal(one['failure']).detail}" for one in failed)
    return Ended(upload_id, Refusal("variant-failed", f"stored, but not every variant could be made ({why})"))


def _refusal(failure: dict[str, str] | None) -> Refusal:
    return Refusal(failure["class"], failure["detail"]) if failure else Refusal("unknown", "no reason is known")
