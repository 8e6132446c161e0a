"""A client's connection as a socket whose time-outs are the kernel's (`SO_RCVTIMEO`, `SO_SNDTIMEO`).

`socket.settimeout` costs a `poll` before each piece that is received or sent, and gunicorn switches between blocking
and not several times a request. Each such call also gives the interpreter away, and other threads take it. Here the
socket always blocks, and the kernel ends the wait.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined, unused-ignore]  # typeshed: from 3.12 on


class ClientSocket(socket.socket):
    """Receiving raises TimeoutError when `limit_receiving` has passed without a byte."""

    _receiving = 0.0
    _sending = 0.0
    _holds = False
    _held = b""
    _readable: select.poll | None = None

    @classmethod
    def adopt(cls, accepted: socket.socket, *, seconds: float) -> Self:
        """Take over an accepted connection. `seconds`: how long to wait for the client, either way."""
        made = cls(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        made.limit_receiving(seconds)
        made._sending = seconds
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))
        return made

    def limit_receiving(self, seconds: float) -> None:
        if seconds != self._receiving:
            self._receiving = seconds
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def setblocking(self, flag: bool) -> None:
        """It always blocks: whoever polls it does not mind."""

    def gettimeout(self) -> float | None:
        """For `sendfile`, which waits by itself."""
        return self._sending

    def recv(self, size: int, flags: int = 0) -> bytes:
        try:
            return super().recv(size, flags)
        except BlockingIOError:
            raise TimeoutError from None

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        try:
            return super().recv_into(buffer, nbytes, flags)
        except BlockingIOError:
            raise TimeoutError from None

    def hold_next(self) -> None:
        """What is sent next leaves together with what follows it."""
        self._holds = True

    def flush(self) -> None:
        if self._held:
            self.sendall(b"")

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """The client has the same time for all of it, however it trickles."""
        if self._holds:
            self._holds, self._held = False, bytes(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
        ends = time.monotonic() + self._sending
        rest = memoryview(data)
        while rest:
            if time.monotonic() > ends:
                raise TimeoutError
            try:
                rest = rest[self.send(rest, flags) :]
            except BlockingIOError:
                raise TimeoutError from None

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        self.flush()
        return super().sendfile(file, offset, count)

    def readable_within(self, seconds: float) -> bool:
        """Whether something has come, if only the end."""
        if self._readable is None:
            self._readable = select.poll()
            self._readable.register(self, select.POLLIN)
        return bool(self._readable.poll(seconds * 1000))


def _timeval(seconds: float) -> bytes:
    """As the kernel takes it; zero would mean for ever."""
    whole, micros = divmod(max(1, round(seconds * 1_000_000)), 1_000_000)
    return struct.pack("ll", whole, micros)
