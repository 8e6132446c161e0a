"""Talking to a Millrace over HTTP: where it is, and patience with a service that says "later".

`Patience.send` repeats what may be repeated (no answer, 408, 429, 502 to 504) with growing, jittered pauses, at least
as long as `Retry-After` asks for. It gives up after a time without success. Whoever calls it makes sure that sending
twice does no harm.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx

from millrace_client.errors import Interrupted, ServiceGone

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
LONGEST_RETRY_AFTER_SECONDS = 60.0

LATER = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)

TIMEOUT = httpx.Timeout(60, connect=5, read=150)
"""Reading waits long: the answer to a large upload comes after the last byte is synced."""


def connect(url: str, *, connections: int = 1) -> httpx.Client:
    """A client that keeps up to `connections` open. Proxies of the environment are for other machines only."""
    local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.Client(base_url=url, timeout=TIMEOUT, limits=limits, trust_env=not local)


def check_alive(client: httpx.Client) -> None:
    """A wrong address is said at once, not after minutes of patience.

    Raises:
        ServiceGone: nobody answers.
    """
    try:
        client.get("/livez", timeout=10)
    except httpx.TransportError as error:
        raise ServiceGone(f"{client.base_url} does not answer: {error}") from None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a problem document (RFC 9457) says, or the next best of another answer."""

    kind: str
    detail: str

    @classmethod
    def of(cls, answer: httpx.Response) -> Refusal:
        try:
            said: Any = answer.json()
        except ValueError:
            said = None
        document = said if isinstance(said, dict) else {}
        kind = document.get("code") or str(document.get("type", "")).rpartition(":")[2] or f"http-{answer.status_code}"
        detail = document.get("detail") or document.get("title") or answer.reason_phrase
        return cls(str(kind), str(detail))


class Patience:
    def __init__(self, seconds: float, stop: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._stop = stop or threading.Event()

    def send(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that does not ask to come back later; the last of them when patience ends.

        Raises:
            ServiceGone: there was no answer at all.
            Interrupted: the stop event was set.
        """
        ends = time.monotonic() + self._seconds
        attempt = 0
        while not self._stop.is_set():
            answer: httpx.Response | None = None
            problem = ""
            try:
                answer = request()
            except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
                problem = f"{type(error).__name__}: {error}"
            if answer is not None and answer.status_code not in LATER:
                return answer
            pause = pause_before(attempt, answer)
            if time.monotonic() + pause > ends:
                if answer is not None:
                    return answer
                raise ServiceGone(f"no answer for {self._seconds:g} s ({problem})")
            self._stop.wait(pause)
            attempt += 1
        raise Interrupted


def pause_before(attempt: int, answer: httpx.Response | None = None) -> float:
    """Doubles with every attempt, with jitter, and is never shorter than the answer's Retry-After."""
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 16))
    asked = 0.0 if answer is None else retry_after(answer.headers.get("Retry-After"))
    return max(asked, pause) * (1 + random.random() / 4)


def retry_after(value: str | None) -> float:
    """Seconds, from a number or a date (RFC 9110 §10.2.3); what cannot be understood is 0."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        seconds = float(value)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
