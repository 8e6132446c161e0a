"""Every refusal is a problem document, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.server import Web, head
from tests.pictures import animated, encoded, photo, tiff

JPEG = encoded(photo(), "JPEG")


def assert_problem(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:millrace:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["detail"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("/a", {"content": b"%PDF-1.7" + bytes(100)}, 415, "unsupported-type"),
        ("/a", {"content": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}, 415, "unsupported-type"),
        ("/a", {"content": b"\xff\xd8"}, 415, "unsupported-type"),
        ("/a", {"content": b""}, 400, "bad-request"),
        ("/a", {"content": JPEG[:40]}, 422, "bad-image"),
        ("/a", {"content": tiff(500, 500, 4000)}, 422, "bad-image"),
        ("/a", {"content": tiff(9000, 9000, 4, 64)}, 422, "decoded-too-large"),
        ("/a", {"content": tiff(70_000, 1)}, 422, "too-many-pixels"),
        ("/a", {"data": {"a": "b"}}, 415, "unsupported-type"),
        ("/a", {"files": {"metadata": (None, b"{}")}}, 400, "bad-request"),
        ("/a", {"files": {"asset": JPEG, "other": b"x"}}, 400, "bad-request"),
        ("/a", {"files": [("asset", JPEG), ("asset", JPEG)]}, 400, "bad-request"),
        ("/a", {"files": {"asset": JPEG, "metadata": (None, b"{")}}, 400, "bad-request"),
        ("/a", {"files": {"asset": JPEG, "metadata": (None, b'{"colour": 1}')}}, 400, "bad-request"),
        ("/a", {"files": {"asset": JPEG, "metadata": (None, b'{"tags": "x"}')}}, 400, "bad-request"),
        (
            "/a",
            {"files": {"asset": JPEG, "metadata": (None, b'{"alt": "' + b"x" * 600_000 + b'"}')}},
            400,
            "bad-request",
        ),
        ("/a", {"files": {"asset": JPEG, "metadata": (None, b'{"alt": "\\ud800"}')}}, 400, "bad-request"),
        ("/a?alt=x", {"files": {"asset": JPEG}}, 400, "bad-request"),
        ("/a", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad-request"),
        ("/a?colour=red", {"content": JPEG}, 400, "bad-request"),
        ("/a?alt=" + "x" * 126, {"content": JPEG}, 400, "bad-request"),
        ("/a?alt=x&alt=y", {"content": JPEG}, 400, "bad-request"),
        ("/a?alt=%FF", {"content": JPEG}, 400, "bad-request"),
        ("/a?label.=x", {"content": JPEG}, 400, "bad-request"),
        ("/a?label.k=" + "x" * 257, {"content": JPEG}, 400, "bad-request"),
        ("/a?label." + "k" * 129 + "=x", {"content": JPEG}, 400, "bad-request"),
        ("/a?" + "&".join(f"label.{n}=x" for n in range(51)), {"content": JPEG}, 400, "bad-request"),
        ("/a?" + "&".join(f"tag={n}" for n in range(51)), {"content": JPEG}, 400, "bad-request"),
        ("/a?tag=" + "x" * 257, {"content": JPEG}, 400, "bad-request"),
        ("/a?tag=%00", {"content": JPEG}, 400, "bad-request"),
        ("/a", {"content": JPEG, "headers": {"Content-Digest": "sha-256=AAAA"}}, 400, "bad-request"),
        ("/a", {"content": JPEG, "headers": {"Repr-Digest": "sha-256=:AAAA:"}}, 400, "bad-request"),
        ("/a", {"content": JPEG, "headers": {"Content-Digest": f"sha-256=:{'A' * 43}=:"}}, 422, "digest-mismatch"),
        ("/a", {"content": JPEG, "headers": {"Idempotency-Key": "x" * 256}}, 400, "bad-request"),
        ("/a", {"content": JPEG, "headers": {"Idempotency-Key": "caf\u00e9".encode()}}, 400, "bad-request"),
        ("/a", {"content": JPEG, "headers": {"Idempotency-Key": ""}}, 400, "bad-request"),
    ],
)
def test_refused(shared_web: Web, path: str, options: dict[str, Any], status: int, code: str) -> None:
    answer = httpx.post(f"{shared_web.url}/assets{path}", **options)
    assert_problem(answer, status, code)
    shared_web.assert_nothing_staged()


@pytest.mark.parametrize(
    "target",
    [
        "/assets//a",
        "/assets/a//b",
        "/assets/a/",
        "/assets/",
        "/assets/a/../b",
        "/assets/./a",
        "/assets/a/-/b",
        "/assets/%2e%2E/b",
        "/assets/a%2Fb",
        "/assets/a%2fb",
        "/assets/a%5Cb",
        "/assets/a%00b",
        "/assets/a%0Ab",
        "/assets/a%FFb",
        "/assets/a%zzb",
        "/assets/a%",
        "/assets/" + "/".join("a" * 101),
        "/assets/" + "a" * 300,
        "/assets" + ("/" + "a" * 200) * 9,
        "http://localhost/assets//a",
    ],
)
def test_bad_paths_are_refused_as_they_came(shared_web: Web, target: str) -> None:
    answer = shared_web.exchange(head("POST", target, Content_Length=len(JPEG)) + JPEG)
    assert (answer.status, answer.json()["code"]) == (400, "bad-path")
    assert "location" not in answer.headers
    shared_web.assert_nothing_staged()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"get / HTTP/1.1\r\n\r\n", 400, "bad-request"),
        (b"GET /assets/a b HTTP/1.1\r\n\r\n", 400, "bad-request"),
        ("POST /assets/\u00e9 HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode(), 400, "bad-request"),
        (head("POST", "/assets/a", Content_Length="-1"), 400, "bad-request"),
        (head("POST", "/assets/a", Content_Length=1, Transfer_Encoding="chunked"), 400, "bad-request"),
        (head("POST", "/assets/a", Transfer_Encoding="sieve"), 501, "unsupported-transfer-coding"),
        (head("POST", "/assets/a", Content_Length=1, Expect="the-best"), 417, "expectation-failed"),
        (head("POST", "/assets/a?alt=" + "x" * 9000), 414, "uri-too-long"),
        (head("GET", "/", X="x" * 9000), 431, "header-fields-too-large"),
    ],
)
def test_what_is_no_request_is_a_problem_too(shared_web: Web, request_bytes: bytes, status: int, code: str) -> None:
    answer = shared_web.exchange(request_bytes)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["code"], problem["requestId"]) == (status, code, answer.headers["x-request-id"])
    assert problem["detail"]
    assert answer.headers["connection"] == "close"
    assert problem["requestId"] in shared_web.log.read_text()


def test_too_large_pixels_and_frames(start_web: Callable[..., Web]) -> None:
    web = start_web(LIMITS__MAX_BYTES=50_000, LIMITS__MAX_PIXELS=80_000, LIMITS__MAX_FRAMES=3)
    url = f"{web.url}/assets/a"
    large = JPEG + bytes(60_000)
    assert_problem(httpx.post(url, content=large), 413, "too-large")
    assert_problem(httpx.post(url, content=iter([large[:1000], large[1000:]])), 413, "too-large")
    assert_problem(httpx.post(url, files={"asset": large}), 413, "too-large")
    assert_problem(httpx.post(url, content=encoded(photo(400, 300), "JPEG")), 422, "too-many-pixels")
    assert_problem(httpx.post(url, content=animated("GIF", 5, 16, 16)), 422, "too-many-frames")
    assert httpx.post(url, content=JPEG).status_code == 202
    assert len(web.leftovers()) == 1


def test_a_full_disk_is_said_before_the_body_is_asked_for(start_web: Callable[..., Web]) -> None:
    web = start_web(STAGING__MIN_FREE_BYTES=1 << 60)
    refused = web.exchange(head("POST", "/assets/a", Content_Length=1 << 20, Expect="100-continue"))
    assert (refused.status, refused.json()["code"]) == (503, "staging-full")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["connection"] == "close"
    ready = httpx.get(f"{web.url}/readyz?for=accept")
    assert (ready.status_code, ready.json()["capabilities"]["accept"]) == (503, False)
    web.assert_nothing_staged()


def test_a_disk_that_refuses_leaves_nothing(start_web: Callable[..., Web], tmp_path: Path) -> None:
    armed = tmp_path / "failpoints"
    armed.mkdir()
    web = start_web(FAILPOINTS=armed)
    for step in ("after-create", "write", "before-fsync", "after-rename", "before-dirsync"):
        for action, code in (("errno ENOSPC", "staging-full"), ("errno EIO", "unavailable")):
            (armed / f"accept.{step}").write_text(action)
            answer = httpx.post(f"{web.url}/assets/a", content=JPEG)
            assert_problem(answer, 503, code)
            assert int(answer.headers["Retry-After"]) >= 1
            web.assert_nothing_staged()
    assert httpx.post(f"{web.url}/assets/a", content=JPEG).status_code == 202


def test_what_is_not_there_is_a_problem_too(shared_web: Web) -> None:
    assert_problem(httpx.get(f"{shared_web.url}/nothing"), 404, "not-found")
    answer = httpx.put(f"{shared_web.url}/assets/a")
    assert_problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) >= {"GET", "POST", "DELETE"}
    assert_problem(httpx.get(f"{shared_web.url}/ingests/x"), 404, "not-found")
    assert_problem(httpx.get(f"{shared_web.url}/readyz?what=1"), 400, "bad-request")
