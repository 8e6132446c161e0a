"""The least speed of a client, either way: `min_bytes_per_second`, over stretches of `stall_seconds`.

Only time spent waiting for the client counts, never time spent with our disk or in our queues.
"""

from __future__ import annotations

import time
from typing import Any

from gunicorn.http.errors import InvalidRequestLine, LimitRequestHeaders

from app.client import ClientSocket
from core.errors import StalledBody
from core.sections import Web

HEAD_MAX = 1 << 15
"""Of the request line and the header fields together, in bytes."""


class Receiving:
    """Stands for the socket where gunicorn receives. One for each connection.

    A client that sends nothing of a body for `stall_seconds`, or too little over such a stretch, is `StalledBody`.
    """

    def __init__(self, sock: ClientSocket, web: Web) -> None:
        self._sock = sock
        self._stall_seconds = web.stall_seconds
        self._min_rate = web.min_bytes_per_second
        self._head_length: int | None = None
        self._waited = 0.0
        self._received = 0

    def start_head(self, length: int) -> None:
        """Note that a head of `length` bytes was gathered: it is whole, or never will be."""
        self._head_length = length

    def start_body(self) -> None:
        self._sock.limit_receiving(self._stall_seconds)
        self._head_length = None
        self._waited = 0.0
        self._received = 0

    def recv(self, size: int) -> bytes:
        if self._head_length is not None:
            raise self._endless(self._head_length)
        began = time.monotonic()
        try:
            data = self._sock.recv(size)
        except TimeoutError:
            raise self._stalled() from None
        self._count(len(data), time.monotonic() - began)
        return data

    def recv_into(self, view: memoryview) -> int:
        began = time.monotonic()
        try:
            count = self._sock.recv_into(view)
        except TimeoutError:
            raise self._stalled() from None
        self._count(count, time.monotonic() - began)
        return count

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def _count(self, received: int, waited: float) -> None:
        self._received += received
        self._waited += waited
        if self._waited < self._stall_seconds:
            return
        if received and self._received < self._min_rate * self._waited:
            raise self._stalled()
        self._waited, self._received = 0.0, 0

    def _stalled(self) -> StalledBody:
        return StalledBody(
            f"the body stopped: nothing within {self._stall_seconds:g} s, or less than {self._min_rate} bytes a second"
        )

    def _endless(self, length: int) -> Any:
        """Why the parser asks for more of a head that is not waited for any longer."""
        if length > HEAD_MAX:
            return LimitRequestHeaders(f"the head of the request has more than {HEAD_MAX} bytes")
        return InvalidRequestLine("its end is not CR LF")


class Sending:
    """Of one connection: whether its client reads what it asked for."""

    def __init__(self, sock: ClientSocket, web: Web) -> None:
        self._sock = sock
        self._stall_seconds = web.stall_seconds
        self._min_rate = web.min_bytes_per_second
        self._taken = 0
        self._waited = 0.0
        self._since = 0.0

    def start(self) -> None:
        """Begin to measure an answer."""
        self._waited, self._taken = 0.0, self._sock.taken

    def wait(self, now: float) -> None:
        """Note that the client is waited for from here on."""
        self._since = now

    def resume(self, now: float) -> None:
        self._waited += now - self._since

    def is_kept(self, now: float) -> bool:
        """Return whether the client may stay; asked now and then while it is waited for."""
        waited = self._waited + now - self._since
        if waited < self._stall_seconds:
            return True
        before, self._taken = self._taken, self._sock.taken
        self._waited, self._since = 0.0, now
        return self._taken > before and self._taken - before >= self._min_rate * waited
