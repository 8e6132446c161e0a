"""A server that answers what a test says, and remembers what it was asked. Import its fixture `script`."""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from storage.s3.options import S3Options
from storage.s3.store import S3Store
from tests.contracts.object_store import sha256

DATE = "Sat, 21 Nov 2026 12:00:00 GMT"


@dataclass
class Answer:
    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    promised: int | None = None
    """Content-Length, where the body breaks off before it."""
    trickle: float = 0
    """Seconds between two of ten pieces of the body."""

    @property
    def content(self) -> bytes:
        return f"<Error><Code>{self.code}</Code></Error>".encode() if self.code else self.body


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def what(self) -> tuple[str, str]:
        return self.method, self.headers.get("If-None-Match", "")


def stored(data: bytes, digest: bytes | None, *, vouched: bool = True) -> Answer:
    """To a HEAD of an object that holds `data` and promises `digest`."""
    headers = {"Last-Modified": DATE, "ETag": '"x"'} | (vouching(data) if vouched else {})
    return Answer(200, headers=headers | ({"x-amz-meta-sha256": digest.hex()} if digest else {}), promised=len(data))


def vouching(data: bytes) -> dict[str, str]:
    return {"ETag": '"x"', "x-amz-checksum-sha256": base64.b64encode(sha256(data)).decode()}


def content(data: bytes) -> Answer:
    """To a GET."""
    return Answer(200, headers={"ETag": '"x"'}, body=data)


class Script(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: deque[Answer] = deque()
        self.always: Callable[[Asked], Answer] | None = None
        """Instead of `answers`."""
        self.asked: list[Asked] = []
        self.seconds_per_mebibyte = 0.0
        """How slowly a request's body is taken."""

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and If-None-Match of each."""
        return [one.what for one in self.asked]

    def open_store(self, **more: Any) -> S3Store:
        return open_store(self.server_port, **more)


class _Handler(BaseHTTPRequestHandler):
    server: Script
    protocol_version = "HTTP/1.1"  # so that it answers `Expect: 100-continue`

    def answer(self) -> None:
        asked = Asked(self.command, self.path, self.headers, self._body())
        self.server.asked.append(asked)
        answer = self.server.always(asked) if self.server.always else self.server.answers.popleft()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content) if answer.promised is None else answer.promised))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self._send(answer)
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    def _body(self) -> bytes:
        left = int(self.headers.get("Content-Length", 0))
        pieces = []
        while left and (piece := self.rfile.read(min(left, 1 << 16))):
            pieces.append(piece)
            left -= len(piece)
            time.sleep(self.server.seconds_per_mebibyte / 16)
        return b"".join(pieces)

    def _send(self, answer: Answer) -> None:
        if not answer.trickle:
            self.wfile.write(answer.content)
            return
        piece = -(-len(answer.content) // 10)
        for start in range(0, len(answer.content), piece):
            self.wfile.write(answer.content[start : start + piece])
            self.wfile.flush()
            time.sleep(answer.trickle)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client gave up, which some tests want

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def script() -> Iterator[Script]:
    server = Script()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    assert not server.answers, "not all answers were asked for"


def open_store(port: int, **more: Any) -> S3Store:
    return S3Store(
        "main",
        S3Options.model_validate(
            {
                "bucket": "pictures",
                "endpoint_url": f"http://127.0.0.1:{port}",
                "addressing_style": "path",
                "access_key_id": "test-key",
                "secret_access_key": "test-secret",
                "max_attempts": 1,
            }
            | more
        ),
    )
