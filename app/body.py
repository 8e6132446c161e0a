"""The body of one request, read from its connection, with an end to every wait (`app/pace.py`).

It is what the application sees as `wsgi.input`. It ends normally only when the whole body was received: a short body, a
reset and a chunked body cut before its last chunk are `IncompleteBody`. Only an upload may be long:
`bound` ends every other body with `TooLarge`, also one that does not say its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

from app.pace import Receiving
from core.errors import IncompleteBody, StalledBody, TooLarge

CHUNK = 1 << 20

BODY_MAX = 1 << 20
"""Of every request but an upload, in bytes."""


class RequestBody:
    """What is left of a request on its connection. Reading past the end gives nothing, again and again."""

    def __init__(self, request: Request, unreader: Unreader, pace: Receiving, *, expects_continue: bool) -> None:
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
        """Leave the rest unread: the answer says `Connection: close`, and the connection ends after it."""
        self._request.force_close()

    def bound(self, most: int) -> None:
        """Refuse to read more than `most` bytes of it.

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
