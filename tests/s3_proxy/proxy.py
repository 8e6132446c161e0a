"""The proxy itself: threads of the test's own process. Clients see one more S3 service, which is the one behind it.

Each request is taken in whole, checked against its digests, passed on, and answered; faults are drawn for it when its
headers have come. What is said of a request's operation, key and outcome is kept in `seen`.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from tests.s3_proxy.digests import declared, objection
from tests.s3_proxy.faults import Fault
from tests.s3_proxy.messages import BLOCK_BYTES, Answer, HungUp, Request, refusal

IN_MEMORY = 1 << 16
"""Longer bodies lie in a file: a test that measures memory must not see the proxy's."""

UPSTREAM_SECONDS = 60
OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
OURS = OF_ONE_HOP | {"date", "server"}
CHECKSUM = "x-amz-checksum-sha256"


@dataclass
class Injection:
    """A fault that happens to matching requests: `times` of them, each with probability `rate`."""

    fault: Fault
    operations: Collection[str]
    key: str
    times: float
    rate: float
    fired: int = 0

    def matches(self, request: Request) -> bool:
        return (
            self.fired < self.times
            and (not self.operations or request.operation in self.operations)
            and self.key in request.key
        )


@dataclass
class Seen:
    operation: str
    key: str
    digests: frozenset[str]
    """The headers that protect the request's body."""
    outcome: str = ""
    """The answer's status, with the code of a refusal of the proxy's own; `cut` where the connection ended early."""


@dataclass
class S3Proxy:
    upstream: str
    seen: list[Seen] = field(default_factory=list)
    port: int = 0
    _injections: list[Injection] = field(default_factory=list)
    _random: Random = field(default_factory=lambda: Random(7))
    _lock: Lock = field(default_factory=Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(
        self, fault: Fault, *operations: str, key: str = "", times: float = float("inf"), rate: float = 1.0
    ) -> Injection:
        """Without operations all are meant; `key` is a part of the object's."""
        injection = Injection(fault, operations, key, times, rate)
        with self._lock:
            self._injections.append(injection)
        return injection

    def stop_faults(self) -> None:
        with self._lock:
            self._injections.clear()

    def clear(self) -> None:
        """As new, for the next test."""
        self.stop_faults()
        self.seen.clear()

    def outcomes(self, *operations: str) -> list[str]:
        """Of those requests that are over."""
        return [one.outcome for one in self.seen if one.operation in operations and one.outcome]

    def draw(self, request: Request) -> list[Fault]:
        drawn = []
        with self._lock:
            for injection in self._injections:
                if injection.matches(request) and self._random.random() < injection.rate:
                    injection.fired += 1
                    drawn.append(injection.fault)
        return drawn


@contextmanager
def s3_proxy(upstream: str) -> Iterator[S3Proxy]:
    proxy = S3Proxy(upstream)
    server = _Server(proxy)
    proxy.port = server.server_port
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="s3-proxy")
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 256

    def __init__(self, proxy: S3Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # TCP sockets only
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):  # clients may break off, too
            super().handle_one_request()
            return
        self.close_connection = True

    def _serve(self) -> None:
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as body:
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body, int(headers.get("content-length", 0)))
            seen = Seen(request.operation, request.key, frozenset(declared(request)))
            self.server.proxy.seen.append(seen)
            faults = self.server.proxy.draw(request)
            try:
                self._take(request, min((fault.takes for fault in faults), default=1.0))
                with _answered(request, faults, self.server.proxy.upstream) as answer:
                    seen.outcome = f"{answer.status} {answer.headers.get('x-refused', '')}".rstrip()
                    self._say(request, answer)
            except HungUp:
                seen.outcome = "cut"
                self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _take(self, request: Request, share: float) -> None:
        left = int(request.size * share)
        while left:
            block = self.rfile.read(min(left, BLOCK_BYTES))
            if not block:
                raise HungUp
            request.body.write(block)
            left -= len(block)
        if share < 1.0:
            raise HungUp

    def _say(self, request: Request, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method != "HEAD":
            for block in answer.blocks:
                self.wfile.write(block)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def _answered(request: Request, faults: list[Fault], upstream: str) -> Iterator[Answer]:
    for fault in faults:
        said = fault.before(request)
        if said:
            yield said
            return
    refused = objection(request)
    if refused:
        yield refused
        return
    connection = HTTPConnection(urlsplit(upstream).netloc, timeout=UPSTREAM_SECONDS)
    try:
        try:
            answer = _passed_on(request, connection)
        except (OSError, HTTPException) as error:
            yield refusal(503, "ServiceUnavailable", str(error))
            return
        for fault in faults:
            fault.after(request, answer)
        yield answer
    finally:
        connection.close()


def _passed_on(request: Request, connection: HTTPConnection) -> Answer:
    """With its `Host` left as it is, so that a signature stays good."""
    connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers.items():
        if name not in OF_ONE_HOP:
            connection.putheader(name, value)
    connection.endheaders()
    for block in request.blocks():
        connection.send(block)
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in OURS}
    if request.method != "HEAD" and "content-length" not in headers:
        whole = answer.read()
        return Answer(answer.status, headers | {"content-length": str(len(whole))}, [whole])
    if answer.status == 200 and CHECKSUM in request.headers:
        headers.setdefault(CHECKSUM, request.headers[CHECKSUM])  # S3 says what it has checked; moto mostly does not
    return Answer(answer.status, headers, iter(lambda: answer.read(BLOCK_BYTES), b""))
