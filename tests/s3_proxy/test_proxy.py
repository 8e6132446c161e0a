"""The fault proxy itself: it hides nothing, checks what bodies declare, and does to a request what it is told to."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from tests.s3_proxy import (
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    FlipAnswer,
    FlipRequest,
    Hide,
    LoseAnswer,
    S3Proxy,
    s3_proxy,
)

BODY = b"0123456789"
LISTING = b"<L><Contents><Key>a</Key></Contents><Contents>\n<Key>b</Key><Size>1</Size></Contents></L>"


class Service(BaseHTTPRequestHandler):
    """Says what it was sent; a listing where no object is named."""

    def do_PUT(self) -> None:
        self.server.stored.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]  # see below
        self._say(b"")

    def do_GET(self) -> None:
        self._say(BODY if self.path.count("/") > 1 else LISTING)

    do_HEAD = do_GET

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def stored(service: ThreadingHTTPServer) -> list[bytes]:
    service.stored = []  # type: ignore[attr-defined]  # what has arrived
    return service.stored  # type: ignore[attr-defined]


@pytest.fixture
def proxy(service: ThreadingHTTPServer) -> Iterator[S3Proxy]:
    with s3_proxy(f"http://127.0.0.1:{service.server_port}") as made:
        yield made


@pytest.fixture
def client(proxy: S3Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.endpoint, trust_env=False, timeout=20) as made:
        yield made


def b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def digests_of(body: bytes) -> dict[str, str]:
    return {
        "content-md5": b64(hashlib.md5(body).digest()),
        "x-amz-checksum-sha256": b64(hashlib.sha256(body).digest()),
        "x-amz-checksum-crc32": b64(zlib.crc32(body).to_bytes(4, "big")),
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
    }


def test_what_is_right_passes(client: httpx.Client, stored: list[bytes], proxy: S3Proxy) -> None:
    assert client.put("/bucket/a/b", content=BODY, headers=digests_of(BODY)).status_code == 200
    assert client.put("/bucket/a/b", content=BODY, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}).is_success
    assert stored == [BODY, BODY]
    assert client.get("/bucket/a").content == BODY
    assert client.head("/bucket/a").headers["content-length"] == "10"
    assert [(one.operation, one.key, one.outcome) for one in proxy.seen] == [
        ("PutObject", "a/b", "200"),
        ("PutObject", "a/b", "200"),
        ("GetObject", "a", "200"),
        ("HeadObject", "a", "200"),
    ]
    assert proxy.seen[0].digests == digests_of(BODY).keys()


@pytest.mark.parametrize("name", digests_of(b""))
@pytest.mark.parametrize("flipped", [False, True], ids=["wrong-digest", "wrong-body"])
def test_what_does_not_match_its_digest_never_arrives(
    client: httpx.Client, stored: list[bytes], proxy: S3Proxy, name: str, flipped: bool
) -> None:
    if flipped:
        proxy.inject(FlipRequest())
    answer = client.put("/bucket/a", content=BODY, headers={name: digests_of(BODY if flipped else b"other")[name]})
    code = "XAmzContentSHA256Mismatch" if name == "x-amz-content-sha256" else "BadDigest"
    assert (answer.status_code, f"<Code>{code}</Code>" in answer.text) == (400, True)
    assert stored == []


def test_a_digest_that_is_not_understood_is_not_waved_through(client: httpx.Client, stored: list[bytes]) -> None:
    assert client.put("/bucket/a", content=BODY, headers={"x-amz-checksum-crc64nvme": "AAA="}).status_code == 501
    assert stored == []


def test_a_flipped_bit_arrives_where_nothing_protects_the_body(
    client: httpx.Client, stored: list[bytes], proxy: S3Proxy
) -> None:
    proxy.inject(FlipRequest(), "PutObject", times=1)
    client.put("/bucket/a", content=BODY)
    client.put("/bucket/a", content=BODY)
    assert stored == [b"0123446789", BODY]
    proxy.inject(FlipAnswer(), "GetObject", times=1)
    assert client.get("/bucket/a").content == b"0123446789"


def test_refused_before_the_service_hears_of_it(client: httpx.Client, stored: list[bytes], proxy: S3Proxy) -> None:
    injection = proxy.inject(SLOW_DOWN, "PutObject", key="a", rate=0.5)
    statuses = [client.put("/bucket/a", content=BODY).status_code for _ in range(60)]
    assert statuses.count(200) == len(stored)
    assert statuses.count(503) == injection.fired
    assert 10 < injection.fired < 50
    assert client.put("/bucket/b", content=BODY).status_code == 200


def test_connections_end_where_they_should(client: httpx.Client, stored: list[bytes], proxy: S3Proxy) -> None:
    proxy.inject(LoseAnswer(), times=1)
    with pytest.raises(httpx.TransportError):
        client.put("/bucket/a", content=BODY)
    assert stored == [BODY]
    proxy.inject(CutRequest(), times=1)
    with pytest.raises(httpx.TransportError):
        client.put("/bucket/a", content=bytes(1 << 20))
    assert stored == [BODY]
    proxy.inject(CutAnswer(), times=1)
    with client.stream("GET", "/bucket/a") as answer:
        assert answer.headers["content-length"] == "10"
        with pytest.raises(httpx.TransportError):
            answer.read()
    assert proxy.outcomes("PutObject", "GetObject") == ["cut"] * 3


def test_a_key_is_hidden_in_a_listing(client: httpx.Client, proxy: S3Proxy) -> None:
    proxy.inject(Hide("b"), "ListObjectsV2")
    assert client.get("/bucket?list-type=2").content == b"<L><Contents><Key>a</Key></Contents></L>"
