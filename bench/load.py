"""Clients that cost little beside the servers they measure: plain sockets, kept alive, several processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

PROCESSES = 2
THREADS = 8
TIMEOUT_SECONDS = 120


class Connection:
    """One HTTP/1.1 connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def get(self, path: str) -> int:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return self._answer()

    def post(self, path: str, body: bytes) -> int:
        self._socket.sendall(_head(path, len(body)) + body)
        return self._answer()

    def post_file(self, path: str, file: Path) -> int:
        with file.open("rb") as body:
            self._socket.sendall(_head(path, os.fstat(body.fileno()).st_size))
            self._socket.sendfile(body)
        return self._answer()

    def _answer(self) -> int:
        """The status, once the whole answer has arrived."""
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        _, _, after = head.partition(b"content-length:")
        left = int(after.split(b"\r\n", 1)[0]) - (len(received) - end - 4)
        while left > 0:
            left -= len(self._receive())
        return int(head.split(b" ", 2)[1])

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def _head(path: str, size: int) -> bytes:
    fields = f"Host: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {size}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


def uploads_per_second(port: int, body: bytes, seconds: float) -> float:
    """As many uploads as the server takes from all clients together, counted between two agreed moments."""
    starts = time.monotonic() + 0.3
    context = multiprocessing.get_context("fork")
    counts = context.SimpleQueue()
    clients = [
        context.Process(target=_flood, args=(port, body, starts, starts + seconds, counts)) for _ in range(PROCESSES)
    ]
    for client in clients:
        client.start()
    total = sum(counts.get() for _ in clients)
    for client in clients:
        client.join()
    return float(total) / seconds


def _flood(port: int, body: bytes, starts: float, ends: float, counts: multiprocessing.SimpleQueue[int]) -> None:
    done: list[int] = []

    def run(number: int) -> None:
        count = 0
        with Connection(port) as connection:
            time.sleep(max(0.0, starts - time.monotonic()))
            while time.monotonic() < ends:
                status = connection.post(f"/assets/bench/{os.getpid()}/{number}/{count}.jpg", body)
                if status not in (200, 202):
                    raise RuntimeError(f"an upload was answered with {status}")
                count += time.monotonic() < ends
        done.append(count)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.put(sum(done) if len(done) == THREADS else -(10**9))


def upload_all(port: int, prefix: str, bodies: Sequence[bytes], *, connections: int) -> None:
    """Send each once; returns when all are accepted."""
    numbers = itertools.count()
    refused: list[int] = []

    def run() -> None:
        with Connection(port) as connection:
            while (number := next(numbers)) < len(bodies):
                status = connection.post(f"/assets/{prefix}/{number}.jpg", bodies[number])
                if status != 202:
                    refused.append(status)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise RuntimeError(f"uploads were refused: {refused[:5]}")
