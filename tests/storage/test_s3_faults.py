"""What the S3 store makes of a service that refuses, conflicts, breaks off or says nothing: a scripted server."""

from __future__ import annotations

import base64
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from core.errors import AlreadyExists, Forbidden, MillraceError, NotFound, StoreFull, StoreUnavailable
from storage.interface import Span
from storage.s3.errors import Outage
from storage.s3.options import S3Options
from storage.s3.store import S3Store
from tests.contracts.object_store import fill, keys, read, sha256

DATE = "Sat, 21 Nov 2026 12:00:00 GMT"


@dataclass
class Answer:
    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    promised: int | None = None
    """Content-Length, where the body breaks off before it."""

    @property
    def content(self) -> bytes:
        return f"<Error><Code>{self.code}</Code></Error>".encode() if self.code else self.body


def stored(data: bytes, digest: bytes | None) -> Answer:
    headers = {"Last-Modified": DATE, "ETag": '"x"'} | vouching(data)
    return Answer(200, headers=headers | ({"x-amz-meta-sha256": digest.hex()} if digest else {}), promised=len(data))


def vouching(data: bytes) -> dict[str, str]:
    return {"ETag": '"x"', "x-amz-checksum-sha256": base64.b64encode(sha256(data)).decode()}


class Script(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: deque[Answer] = deque()
        self.asked: list[tuple[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Script
    protocol_version = "HTTP/1.1"  # so that it answers `Expect: 100-continue`

    def answer(self) -> None:
        self.server.asked.append((self.command, self.headers.get("If-None-Match", "")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.answers.popleft()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content) if answer.promised is None else answer.promised))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

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


@pytest.fixture
def store(script: Script) -> Iterator[S3Store]:
    made = open_store(script.server_port)
    yield made
    made.close()
    assert not script.answers


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", Forbidden),
        (403, "InvalidAccessKeyId", Forbidden),
        (403, "SignatureDoesNotMatch", Forbidden),
        (400, "ExpiredToken", Forbidden),
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", StoreUnavailable),
        (503, "SlowDown", Outage),
        (429, "", Outage),
        (500, "InternalError", Outage),
        (507, "XMinioStorageFull", StoreFull),
        (403, "QuotaExceeded", StoreFull),
        (403, "InvalidObjectState", StoreUnavailable),
        (400, "AuthorizationHeaderMalformed", StoreUnavailable),
        (418, "", StoreUnavailable),
    ],
)
def test_what_an_answer_means(
    script: Script, store: S3Store, status: int, code: str, error: type[MillraceError]
) -> None:
    script.answers.append(Answer(status, code))
    with pytest.raises(MillraceError) as caught:
        read(store, "a")
    assert type(caught.value) is error
    assert "test-secret" not in caught.value.detail


def test_a_put_is_conditional_and_a_conflict_is_tried_again(script: Script, store: S3Store) -> None:
    script.answers += [Answer(409, "ConditionalRequestConflict"), Answer(200, headers=vouching(b"abc"))]
    assert fill(store, "a", b"abc").size == 3
    assert script.asked == [("PUT", "*"), ("PUT", "*")]


def test_a_conflict_that_does_not_end(script: Script, store: S3Store) -> None:
    script.answers += [Answer(409, "ConditionalRequestConflict")] * 4
    with pytest.raises(StoreUnavailable):
        fill(store, "a", b"abc")


@pytest.mark.parametrize("digest", [sha256(b"abc"), None])
def test_a_taken_key_with_the_same_object_is_success(script: Script, store: S3Store, digest: bytes | None) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), stored(b"abc", digest)]
    assert fill(store, "a", b"abc").size == 3


@pytest.mark.parametrize(("data", "digest"), [(b"abc", sha256(b"abd")), (b"abcd", None)])
def test_a_taken_key_with_another_object(script: Script, store: S3Store, data: bytes, digest: bytes | None) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), stored(data, digest)]
    with pytest.raises(AlreadyExists):
        fill(store, "a", b"abc")


def test_a_key_that_was_freed_meanwhile_is_tried_again(script: Script, store: S3Store) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), Answer(404), Answer(200, headers=vouching(b"abc"))]
    assert fill(store, "a", b"abc").size == 3


def test_a_missing_bucket_is_asked_for_before_an_object_is_called_missing(script: Script, store: S3Store) -> None:
    script.answers += [Answer(404), Answer(404), Answer(404), Answer(200)]
    with pytest.raises(StoreUnavailable, match="no bucket pictures"):
        store.head("a")
    with pytest.raises(NotFound):
        store.head("a")


def test_a_body_that_breaks_off_is_not_a_short_object(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(200, body=b"abc", promised=10))
    with pytest.raises(StoreUnavailable):
        read(store, "a")


def test_a_service_that_ignores_ranges_is_not_believed(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(200, body=b"abc"))
    with pytest.raises(StoreUnavailable, match="ignores ranges"):
        read(store, "a", Span(1, 2))


@pytest.mark.parametrize(("code", "error"), [("AccessDenied", Forbidden), ("InternalError", StoreUnavailable)])
def test_what_was_not_deleted_is_told(script: Script, store: S3Store, code: str, error: type[Exception]) -> None:
    body = f"<DeleteResult><Error><Key>a</Key><Code>{code}</Code></Error></DeleteResult>".encode()
    script.answers.append(Answer(200, body=body))
    with pytest.raises(error):
        store.delete(["a"])


def test_a_listing_that_is_refused(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(403, "AccessDenied"))
    with pytest.raises(Forbidden):
        keys(store)


def test_a_service_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = open_store(silent.getsockname()[1], attempt_timeout=0.2)
        with pytest.raises(StoreUnavailable):
            store.head("a")
        store.close()
