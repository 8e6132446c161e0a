"""The body of one request, read from its connection, with an end to every wait.

`Pace` sits where bytes are received, below every reader of gunicorn's: a client that sends nothing for
`stall_seconds`, or less than `min_bytes_per_second` over such a stretch, is `StalledBody`. Only time spent waiting for
the client counts, never time spent writing to our disk.

`RequestBody` is what the application sees as `wsgi.input`. It ends normally only when the whole body was received: a
short body, a reset and a chunked body cut before its last chunk are `IncompleteBody`. Only an upload may be long:
`bound` ends every other body with `TooLarge`, also one that does not say its length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from app.client import ClientSocket
from core.errors import IncompleteBody, StalledBody, TooLarge
from core.sections import Web

HEAD_SECONDS = 10
"""How long a client may take to send the request line and the header fields."""

CHUNK = 1 << 20

BODY_MAX = 1 << 20
"""Of every request but an upload, in bytes."""


class Pace:
    """Stands for the socket where gunicorn receives. One for each connection."""

    def __init__(self, sock: ClientSocket, web: Web) -> None:
        self._sock = sock
        self._stall_seconds = web.stall_seconds
        self._min_rate = web.min_bytes_per_second
        self._head_ends: float | None = None
        self._head_begun = False
        self._waited = 0.0
        self._received = 0

    def start_head(self, *, begun: bool) -> None:
        """A head is due. Its first piece has come, or a part of it lies in a buffer already: then it has `begun`."""
        self._head_begun = begun
        self._head_ends = time.monotonic() + HEAD_SECONDS

    def start_body(self) -> None:
        self._sock.limit_receiving(self._stall_seconds)
        self._head_ends = None
        self._waited = 0.0
        self._received = 0

    def recv(self, size: int) -> bytes:
        began = time.monotonic()
        if self._head_ends is not None:
            return self._recv_head(size, self._head_ends - began)
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

    def _recv_head(self, size: int, left: float) -> bytes:
        """A head that does not end is dropped as if the client had gone: there is no request to answer."""
        if left <= 0:
            raise NoMoreData
        if self._head_begun:
            self._sock.limit_receiving(left)
        self._head_begun = True
        try:
            return self._sock.recv(size)
        except TimeoutError:
            raise NoMoreData from None

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


class RequestBody:
    """What is left of a request on its connection. Reading past the end gives nothing, again and again."""

    def __init__(self, request: Request, unreader: Unreader, pace: Pace, *, expects_continue: bool) -> None:
        self._request = request
        self._unreader = unreader
        self._pace = pace
        self._reader = request.body.reader
        self._expects_continue = expects_continue
        self.length: int | None = getattr(self._reader, "length", None)
        """None: chunked."""
        self._left = self.length
        self._ended = self.length == 0
        self._most: int | None = None
        self._taken = 0
        self.failed = False
        pace.start_body()

    @property
    def complete(self) -> bool:
        """The whole body was received, so the connection stands at the next request."""
        return self._ended and not self.failed

    def abandon(self) -> None:
        """Nobody will read the rest: the answer says `Connection: close`, and the connection ends after it."""
        self._request.force_close()

    def bound(self, most: int) -> None:
        """Let nobody read more than `most` bytes of it.

        Raises:
            TooLarge: the client says already that it is longer.
        """
        if self.length is not None and self.length > most:
            raise _too_large(most)
        self._most = most

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        buffer = bytearray(size if self._left is None else min(size, self._left))
        return bytes(memoryview(buffer)[: self.fill(memoryview(buffer))])

    def fill(self, view: memoryview) -> int:
        """Receive until `view` is full or the body ends; returns how many bytes there are, 0 at the end.

        Raises:
            IncompleteBody: the client went away, or the chunks make no sense.
            StalledBody: it sends too slowly.
            TooLarge: it is longer than `bound` allows.
        """
        if self._ended or not len(view):
            return 0
        with self._translated():
            self._continue()
            filled = self._fill_chunked(view) if self._left is None else self._fill_sized(view)
            self._count(filled)
            return filled

    def _count(self, filled: int) -> None:
        if self._most is None:
            return
        self._taken += filled
        if self._taken > self._most:
            raise _too_large(self._most)

    def _fill_sized(self, view: memoryview) -> int:
        assert self._left is not None
        wanted = min(len(view), self._left)
        filled = self._take_buffered(view, wanted)
        while filled < wanted:
            received = self._pace.recv_into(view[filled:wanted])
            if not received:
                raise IncompleteBody(
                    f"the body ended {self._left - filled} bytes before its Content-Length of {self.length}"
                )
            filled += received
        self._left -= filled
        self._ended = self._left == 0
        return filled

    def _take_buffered(self, view: memoryview, wanted: int) -> int:
        """Bytes that came with the head; what belongs to the next request goes back."""
        buffered = self._unreader.take_buffered()
        taken = min(len(buffered), wanted)
        view[:taken] = buffered[:taken]
        if taken < len(buffered):
            self._unreader.unread(buffered[taken:])
        return taken

    def _fill_chunked(self, view: memoryview) -> int:
        data = self._reader.read(len(view))
        view[: len(data)] = data
        self._ended = not data
        return len(data)

    def _continue(self) -> None:
        """Only now is the body wanted: a request refused before never sends it."""
        if self._expects_continue:
            self._expects_continue = False
            self._pace.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (IncompleteBody, StalledBody, TooLarge):
            self._fail()
            raise
        except NoMoreData:
            self._fail()
            raise IncompleteBody("the body ended before its last chunk") from None
        except ParseException as error:
            self._fail()
            raise IncompleteBody(f"bad chunk: {error}") from None
        except OSError as error:
            self._fail()
            raise IncompleteBody(f"the connection broke: {type(error).__name__}") from None

    def _fail(self) -> None:
        self.failed = True
        self._ended = True
        self.abandon()


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body of a request that is no upload has at most {most} bytes")
