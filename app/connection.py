"""One connection: the head that it gathers without a thread, the answer that it sends, and its end."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator
from enum import Enum
from typing import Any

from gunicorn import http

from app.answer import Answer
from app.client import ClientSocket
from app.pace import HEAD_MAX, Receiving, Sending
from app.peers import Peers, share_of
from app.turns import Lane, Place
from core.failpoints import failpoint
from core.sections import Web

PIECE = 8192
DRAIN_PIECE = 1 << 16
LINE_MAX = 8190
"""Of the request line: the most that gunicorn counts."""

RIPE = re.compile(rb"\r\n\r\n|(?<!\r)\n")
"""The end of a head, or what no head may have: a thread says what is wrong with it."""
HEALTH = re.compile(rb"(?:GET|HEAD) /(?:livez|readyz)[? ]")
BODILESS = re.compile(rb"(?:GET|HEAD|DELETE|OPTIONS) ")
"""Methods whose body, if there is one, is not read."""


class State(Enum):
    """What a connection without a thread waits for."""

    IDLE = "a request, of which nothing has come"
    HEAD = "the rest of a head"
    TURN = "a thread"
    ROOM = "its client to read"
    CLOSING = "its client to see the end"


class Connection:
    def __init__(self, cfg: Any, sock: ClientSocket, peer: Any, server: Any, web: Web) -> None:
        self.sock = sock
        self.peer = peer
        self.server = server
        self.receiving = Receiving(sock, web)
        self.pace = Sending(sock, web)
        self.parser = http.get_parser(cfg, self.receiving, peer)
        self.state = State.IDLE
        self.deadline = 0.0
        self.client = ""
        """Who asks, as text; empty for one of this machine."""
        self.place = Place(Lane.READING, "")
        self.answer: Answer | None = None
        self.sending: Iterator[None] | None = None
        """Of the answer under way; each step is a wait for the client."""
        self._head = bytearray()
        self._drain = int(web.drain_bytes)
        self.closed = False
        self.ripe = False
        """A thread has something to do: a head is whole, or never will be."""

    @property
    def has_begun(self) -> bool:
        """Return whether something of a request has come."""
        return bool(self._head)

    def gather(self) -> bool:
        """Take what has come of a head, without waiting. Returns False at the end of the connection."""
        failpoint("web.connection")
        try:
            data = self.sock.recv(PIECE, socket.MSG_DONTWAIT)
        except TimeoutError:
            return True
        except OSError:
            return False
        self._add(data)
        return bool(data)

    def _add(self, data: bytes) -> None:
        seen = max(0, len(self._head) - 3)
        self._head += data
        head = self._head
        self.ripe = (
            RIPE.search(head, seen) is not None
            or len(head) > HEAD_MAX
            or (len(head) > LINE_MAX + 2 and head.find(b"\n", 0, LINE_MAX + 2) < 0)
        )

    def place_of(self, peers: Peers) -> Place:
        """Find out which client asks, and return where its request queues."""
        self.client = peers.client_of(self.peer, self._head)
        return Place(self._lane(), share_of(self.client))

    def _lane(self) -> Lane:
        if HEALTH.match(self._head):
            return Lane.HEALTH
        return Lane.READING if BODILESS.match(self._head) else Lane.RECEIVING

    def hand_over(self) -> None:
        """Give the head to the parser, on a thread."""
        self.parser.unreader.unread(bytes(self._head))
        self.receiving.start_head(len(self._head))
        self._head.clear()
        self.ripe = False

    def take_rest(self) -> None:
        """Take what came of the next request together with the last one."""
        rest = self.parser.unreader.take_buffered()
        if rest:
            self._add(rest)

    def close(self) -> None:
        self.sock.close()
        self.closed = True

    def abort(self) -> None:
        """Forget what the client has not taken, and let the kernel forget it when the socket is closed."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def begin_closing(self) -> bool:
        """Closing with unread bytes would reset the connection, and the client might never see the answer. Returns
        whether there is something to wait for."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return self.drain()

    def drain(self) -> bool:
        """Take what still comes. Returns whether more may."""
        try:
            data = self.sock.recv(DRAIN_PIECE, socket.MSG_DONTWAIT)
        except TimeoutError:
            return True
        except OSError:
            return False
        self._drain -= len(data)
        return bool(data) and self._drain > 0
