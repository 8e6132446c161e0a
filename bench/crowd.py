"""Clients that keep connections and do nothing for them, and one honest client beside them.

A third reads its answer at a few bytes a second, a third never ends its heads, a third says nothing. They come from
several addresses of this machine's own network, or, through a proxy, name them.
"""

from __future__ import annotations

import http.client
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Self

from bench import pictures
from bench.measure import KIB, MIB, Comparison
from bench.servers import Millrace

EACH = 500
CLIENTS = 10
HONEST = "127.0.0.99"
ASKED = 60
"""Rounds of the honest client's requests."""
LARGE_BYTES = 16 * MIB
SIP_SECONDS = 1.0
SIP = 2048
"""Just above the least speed that a client must have."""
STEPS = 2


class Crowd:
    """Use it with `with`: they stay until its end."""

    def __init__(self, port: int, path: str, *, each: int = EACH) -> None:
        self._port = port
        self._path = path
        self._each = each
        self._ended = threading.Event()
        self._open = ExitStack()
        self.readers: list[socket.socket] = []

    def __enter__(self) -> Self:
        _allow_files(4 * self._each + 256)
        for number in range(self._each):
            address = f"127.0.0.{2 + number % CLIENTS}"
            self._connect(address)
            self._connect(address).sendall(b"POST /assets/crowd HTTP/1.1\r\nHost: local")
            reader = self._connect(address)
            fields = f"Host: localhost\r\nX-Forwarded-For: {address}"
            reader.sendall(f"GET {self._path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
            self.readers.append(reader)
        for reader in self.readers:  # each is being answered before anything is measured
            reader.recv(1, socket.MSG_PEEK)
        threading.Thread(target=self._sip, name="crowd", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._open.close()

    def _connect(self, address: str) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
        connection.settimeout(60)
        connection.bind((address, 0))
        connection.connect(("127.0.0.1", self._port))
        return self._open.enter_context(connection)

    def _sip(self) -> None:
        while not self._ended.wait(SIP_SECONDS):
            for reader in self.readers:
                try:
                    reader.recv(SIP, socket.MSG_DONTWAIT)
                except OSError:
                    continue


@dataclass
class Asked:
    """Seconds that each request took, and what was not answered as it should be."""

    seconds: list[float]
    refused: list[str]

    @property
    def p95_ms(self) -> float:
        return quantiles(self.seconds, n=20)[-1] * 1000


def ask(port: int, path: str, body: bytes, *, rounds: int = ASKED) -> Asked:
    """Ask as an honest client from an address of its own: is it alive, an upload, a picture."""
    asked = Asked([], [])
    wanted = (("GET", "/livez", 200), ("POST", "/assets/honest", 202), ("GET", path, 200))
    for _ in range(rounds):
        for method, target, status in wanted:
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, source_address=(HONEST, 0))
            try:
                fields = {"Host": "localhost", "X-Forwarded-For": HONEST, "Content-Type": "image/jpeg"}
                connection.request(method, target, body if method == "POST" else None, fields)
                answer = connection.getresponse()
                said = answer.read()
                if answer.status != status:
                    asked.refused.append(f"{method} {target}: {answer.status} {said[:300]!r}")
            except OSError as error:
                asked.refused.append(f"{method} {target}: {type(error).__name__}")
            finally:
                connection.close()
            asked.seconds.append(time.monotonic() - began)
    return asked


def measure(directory: Path, advance: Callable[[str], None]) -> tuple[Comparison, list[str]]:
    """Measure the honest client's 95th percentile beside the crowd, and alone; return it with what the client was
    refused."""
    small = pictures.small()
    compared = Comparison("ms p95, beside 1,500")
    with Millrace(directory / "crowd", "") as ours:
        large = f"/assets/large/-/entry/{_stored(ours.port, '/assets/large', small + bytes(LARGE_BYTES))}/content"
        shown = f"/assets/small/-/entry/{_stored(ours.port, '/assets/small', small)}/content"
        alone = ask(ours.port, shown, small)
        advance("crowd: alone")
        with Crowd(ours.port, large):
            beside = ask(ours.port, shown, small)
            advance("crowd: beside 1,500 that do nothing")
    compared.ours.append(beside.p95_ms)
    compared.bare.append(alone.p95_ms)
    return compared, alone.refused + beside.refused


def _stored(port: int, path: str, body: bytes) -> int:
    """Upload a body, and return the number of its entry once it is stored."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, body, {"Prefer": "wait=60", "Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    location = answer.headers.get("Location", "")
    answer.read()
    connection.close()
    if answer.status != 201:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return int(location.rpartition("/")[2])


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
