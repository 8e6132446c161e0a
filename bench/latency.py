"""A network that takes its time: a TCP proxy that hands on every byte a while after it came, in both directions.

Bytes overtake nothing and are not throttled: what is delayed is the distance, not the bandwidth.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from typing import Self

BLOCK = 1 << 18
IN_FLIGHT = 256
"""Blocks on their way in one direction: enough that the delay is no throttle."""


class DistantServer:
    """Listens on a port of its own, and speaks with `port` on this machine, `seconds` away."""

    def __init__(self, port: int, seconds: float) -> None:
        self._target = port
        self._seconds = seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._hand_on(near, far)
                self._hand_on(far, near)

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        way: queue.Queue[tuple[float, bytes]] = queue.Queue(IN_FLIGHT)
        threading.Thread(target=self._receive, args=(source, way), daemon=True).start()
        threading.Thread(target=_deliver, args=(way, target), daemon=True).start()

    def _receive(self, source: socket.socket, way: queue.Queue[tuple[float, bytes]]) -> None:
        block = b"more"
        while block:
            try:
                block = source.recv(BLOCK)
            except OSError:
                block = b""
            way.put((time.monotonic() + self._seconds, block))


def _deliver(way: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
    """Until an empty block, which is the end of this direction."""
    while True:
        due, block = way.get()
        time.sleep(max(0.0, due - time.monotonic()))
        with suppress(OSError):  # whoever sends notices by itself
            if not block:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(block)
