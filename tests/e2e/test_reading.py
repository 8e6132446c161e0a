"""Reading over HTTP: forms, validators, ranges, variants on demand, and deleting."""

from __future__ import annotations

import hashlib
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.faults.stack import Stack
from tests.pictures import encoded, oriented, photo

PICTURE = encoded(photo(), "JPEG")
SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    """An asset with alt, labels and tags."""
    query = "alt=A+slope&tag=hill&tag=green&label.sku=12"
    answer = httpx.post(
        f"{stack.url}/assets/bare/read me/é.jpg?{query}", content=PICTURE, headers={"Prefer": "wait=20"}
    )
    assert answer.status_code == 201, answer.text
    return f"{stack.url}/assets/bare/read%20me/%C3%A9.jpg"


def test_the_bare_path_is_a_link_to_the_newest_entry(stack: Stack, url: str) -> None:
    told = httpx.get(url).json()
    assert told["alt"] == "A slope"
    assert told["url"] == f"{url}/-/entry/0/content"
    assert httpx.get(told["url"]).content == PICTURE
    assert httpx.get(f"{url}/-/link?w=50").json()["url"] == f"{url}/-/entry/0/content?w=50"


def test_content_has_length_validator_and_type(url: str) -> None:
    answer = httpx.get(f"{url}/-/content")
    assert answer.content == PICTURE
    assert answer.headers["Content-Length"] == str(len(PICTURE))
    assert answer.headers["ETag"] == f'"{SHA256}"'
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = httpx.head(f"{url}/-/content")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(PICTURE)))


def test_what_the_client_has_is_not_sent_again(url: str) -> None:
    for condition in (f'"{SHA256}"', f'W/"{SHA256}"', f'"other", "{SHA256}"', "*"):
        answer = httpx.get(f"{url}/-/content", headers={"If-None-Match": condition})
        assert (answer.status_code, answer.content) == (304, b"")
    assert httpx.get(f"{url}/-/content", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("100-", 100, None),
        ("-7", -7, None),
        ("10-999999999", 10, None),
        ("-999999999", 0, None),
    ],
)
def test_a_range_is_sent_as_a_part(url: str, asked: str, start: int, stop: int | None) -> None:
    answer = httpx.get(f"{url}/-/content", headers={"Range": f"bytes={asked}"})
    expected = PICTURE[start:stop]
    first = start if start >= 0 else len(PICTURE) + start
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(PICTURE)}"


def test_ranges_that_cannot_be_sent(url: str) -> None:
    answer = httpx.get(f"{url}/-/content", headers={"Range": f"bytes={len(PICTURE)}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Content-Range"] == f"bytes */{len(PICTURE)}"
    for whole in ("bytes=0-1,4-5", "lines=1-2", "bytes=x-y"):
        assert httpx.get(f"{url}/-/content", headers={"Range": whole}).status_code == 200
    other = {"Range": "bytes=0-4", "If-Range": '"other"'}
    assert httpx.get(f"{url}/-/content", headers=other).status_code == 200
    same = {"Range": "bytes=0-4", "If-Range": f'"{SHA256}"'}
    assert httpx.get(f"{url}/-/content", headers=same).status_code == 206


def test_refused_and_conditional_requests_give_back_their_share(url: str) -> None:
    """Of the 32 threads of this stack, 16 may read at a time."""
    for _ in range(20):
        assert httpx.get(f"{url}/-/content", headers={"Range": "bytes=999999999-"}).status_code == 416
        assert httpx.get(f"{url}/-/content", headers={"If-None-Match": "*"}).status_code == 304
        assert httpx.head(f"{url}/-/content").status_code == 200
    assert httpx.get(f"{url}/-/content").status_code == 200


def test_download_carries_a_name(url: str) -> None:
    answer = httpx.get(f"{url}/-/download")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%C3%A9.jpg"
    answer = httpx.get(f"{url}/-/download?w=20&format=webp")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%C3%A9.webp"


def test_info_tells_all(url: str) -> None:
    httpx.get(f"{url}/-/content?profile=square")
    told = httpx.get(f"{url}/-/info").json()
    assert told.pop("id")
    for name in ("acceptedAt", "acceptedByHostAt", "createdAt"):
        assert told.pop(name).endswith("+00:00")
    [square] = [one for one in told.pop("variants") if one["profile"] == "square"]
    assert told == {
        "path": "/bare/read me/é.jpg",
        "entry": 0,
        "size": len(PICTURE),
        "sha256": SHA256,
        "mediaType": "image/jpeg",
        "width": 320,
        "height": 240,
        "alt": "A slope",
        "labels": {"sku": "12"},
        "tags": ["green", "hill"],
    }
    assert (square["w"], square["h"], square["fit"], square["format"]) == (48, 48, "crop", "webp")
    assert (square["state"], square["attempts"]) == ("ready", 1)


@pytest.mark.parametrize(
    ("query", "size", "kind"),
    [
        ("w=100", (100, 75), "JPEG"),
        ("h=60&format=png", (80, 60), "PNG"),
        ("w=90&h=90&fit=fill&format=webp", (90, 90), "WEBP"),
        ("w=90&h=90&fit=crop&format=avif", (90, 90), "AVIF"),
        ("w=90&h=30&fit=stretch&format=gif", (90, 30), "GIF"),
        ("w=640", (320, 240), "JPEG"),
        ("w=640&enlarge=true", (640, 480), "JPEG"),
        ("profile=thumb&w=32", (32, 24), "JPEG"),
    ],
)
def test_a_variant_is_made_when_it_is_asked_for(url: str, query: str, size: tuple[int, int], kind: str) -> None:
    answer = httpx.get(f"{url}/-/content?{query}", timeout=20)
    assert answer.status_code == 200, answer.text
    made = Image.open(io.BytesIO(answer.content))
    assert (made.size, made.format) == (size, kind)
    assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


@pytest.mark.parametrize(
    "query", ["w=0", "w=x", "fit=crop&w=3", "width=4", "profile=none", "q=101", "w=1&w=2", "format=svg"]
)
def test_a_bad_wish_is_refused_by_name(url: str, query: str) -> None:
    answer = httpx.get(f"{url}/-/content?{query}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("rest", ["/-/content", "/-/entry/7/content", "/-/nothing", "/-/entry/x", "/-/entry/1/2/3", ""])
def test_what_is_not_there_is_a_problem(stack: Stack, rest: str) -> None:
    answer = httpx.get(f"{stack.url}/assets/bare/nowhere.jpg{rest}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_orientation_is_applied_and_nothing_else_of_exif_is_left(stack: Stack) -> None:
    turned = oriented(6)
    told = stack.upload("/bare/turned.jpg", turned, wait=20)
    assert told.status == 201
    content = httpx.get(f"{stack.url}/assets/bare/turned.jpg/-/content?w=120", timeout=20).content
    made = Image.open(io.BytesIO(content))
    assert made.size == (120, 160)
    assert not made.getexif()
    info = httpx.get(f"{stack.url}/assets/bare/turned.jpg/-/info").json()
    assert (info["width"], info["height"]) == (240, 320)


def test_a_hundred_requests_for_one_variant_render_it_once(stack: Stack, url: str) -> None:
    def ask(_: int) -> tuple[int, bytes]:
        with httpx.Client(timeout=30) as client:
            while True:
                answer = client.get(f"{url}/-/content?w=77&format=png")
                if answer.status_code != 202:
                    return answer.status_code, answer.content
                assert int(answer.headers["Retry-After"]) >= 1
                time.sleep(0.3)

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(ask, range(100)))
    busy = [status for status, _ in answers if status == 503]
    bodies = {content for status, content in answers if status == 200}
    assert len(bodies) == 1
    assert len(busy) < 100
    variants = [one for one in httpx.get(f"{url}/-/info").json()["variants"] if one["w"] == 77]
    assert [(one["state"], one["attempts"]) for one in variants] == [("ready", 1)]


def test_deleting_an_entry_leaves_the_others(stack: Stack) -> None:
    path = f"{stack.url}/assets/bare/twice.jpg"
    for data in (PICTURE, encoded(photo(200, 100), "JPEG")):
        assert stack.upload("/bare/twice.jpg", data, wait=20).status == 201
    stack.history.uploads[-1].deleted = True
    assert httpx.delete(f"{path}/-/entry/1").status_code == 204
    assert httpx.get(path).json()["url"].endswith("/-/entry/0/content")
    assert httpx.get(f"{path}/-/entry/1").status_code == 404
    assert httpx.delete(f"{path}/-/entry/1").status_code == 204
    assert httpx.delete(f"{path}/-/entry/9").status_code == 404
    assert httpx.delete(path).status_code == 400


def test_a_purge_says_what_others_still_hold(stack: Stack) -> None:
    data = encoded(photo(111, 99), "PNG")
    first, second = stack.upload("/bare/p1.png", data, wait=20), stack.upload("/bare/p2.png", data, wait=20)
    told: dict[str, Any] = httpx.delete(f"{stack.url}/assets/bare/p1.png/-/entry/0?purge=true").json()
    assert told == {
        "id": str(first.asset_id),
        "stillHeldBy": [{"id": str(second.asset_id), "path": "/bare/p2.png", "entry": 0}],
        "more": False,
    }
    first.deleted = True
    httpx.delete(f"{stack.url}/assets/bare/p2.png/-/entry/0?purge=true")
    second.deleted = True
    digest = hashlib.sha256(data).hexdigest()
    stack.until(lambda: not any(digest in key for key in stack.world().objects), 20, "the bytes are gone")
    stack.check()
