"""A client's connection as a socket whose time-outs are the kernel's (`SO_RCVTIMEO`, `SO_SNDTIMEO`).

`socket.settimeout` costs a `poll` before each piece that is received or sent, and gives the interpreter away each
time. Here the socket always blocks, and the kernel ends the wait: after `limit_receiving` where a body is received,
after `PATIENCE_SECONDS` where an answer is sent. What the client does not take in that time stays here, and `push`
tries again later: it is for the caller to wait without a thread. A client that was waited for so is not given that
patience again before its next answer.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import struct
import termios
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined, unused-ignore]  # typeshed: from 3.12 on

PATIENCE_SECONDS = 0.05
"""How long a thread waits for a client that does not read: one that reads at all needs less."""

UNSENT_MAX = 1 << 18
"""Bytes that the kernel keeps for a client that does not read: without a limit, megabytes for each."""

_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

FAILED_WAITING = (errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENONET, errno.ENETDOWN, errno.ENETUNREACH,
                  errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EPERM, errno.ETIMEDOUT, errno.ECONNRESET)  # fmt: skip
"""What accept(2) says of one connection that failed before it was accepted; the others are well."""


class ClientSocket(socket.socket):
    """Receiving raises TimeoutError when `limit_receiving` has passed without a byte."""

    _receiving = 0.0
    _sending = 0.0
    _holds = False
    _held = b""
    _sent = 0
    _unsent: memoryview | None = None
    _readable: select.poll | None = None

    @classmethod
    def adopt(cls, accepted: socket.socket, *, seconds: float) -> Self:
        """Take over an accepted connection. `seconds`: how long to wait for what the client sends."""
        made = cls(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        made.limit_receiving(seconds)
        made.be_patient()
        if made.family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_MAX)
        return made

    def limit_receiving(self, seconds: float) -> None:
        if seconds != self._receiving:
            self._receiving = seconds
            self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def be_patient(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Set how many seconds a thread waits for the client to read."""
        if seconds != self._sending:
            self._sending = seconds
            self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))

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
        """Send what the client takes at once; the rest waits for `push`."""
        if self._holds:
            self._holds, self._held = False, bytes(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
        if self._unsent is not None:
            self._unsent = memoryview(bytes(self._unsent) + bytes(data))
        elif len(data):
            self._unsent = memoryview(data)
            self.push()

    def push(self) -> bool:
        """Send on with what waits here. Returns whether all of it is sent: else the client has to read first."""
        if self._unsent is None:
            return True
        try:
            sent = self.send(self._unsent)
        except BlockingIOError:
            return False
        self._sent += sent
        rest = self._unsent[sent:]
        self._unsent = rest if len(rest) else None
        return self._unsent is None

    def send_piece(self, file: int, offset: int, count: int) -> int:
        """Send from a file without a copy. Returns how much the client took; less than `count`: it has to read first.

        Raises:
            NotImplementedError: the kernel cannot, with this file.
            EOFError: the file ends before `offset`.
        """
        try:
            sent = os.sendfile(self.fileno(), file, offset, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in _NO_SENDFILE:
                raise NotImplementedError from error
            raise
        if not sent:
            raise EOFError("the file is shorter than it was")
        self._sent += sent
        return sent

    @property
    def taken(self) -> int:
        """Return how many bytes the client has really taken: what was sent and lies in the kernel does not count."""
        waiting = array.array("i", [0])
        fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, waiting)
        return self._sent - waiting[0]

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
