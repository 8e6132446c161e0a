"""What an upload is answered, with nothing there but the local disk."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread
from uuid import UUID

import httpx
import pytest

from core.model import FailureReason
from tests.app.server import Web, head, read_answer
from tests.pictures import MEDIA_TYPES, encoded, photo

JPEG = encoded(photo(), "JPEG")


@pytest.fixture
def web(shared_web: Web) -> Web:
    """Give every test the same server: none of them minds what the others staged."""
    return shared_web


def staged(web: Web, answer: httpx.Response) -> bytes:
    upload_id = UUID(answer.json()["id"])
    with web.staging.claim(upload_id) as claim:  # type: ignore[union-attr]
        return claim.body().read()


def test_a_raw_body_is_staged_with_all_that_was_said(web: Web) -> None:
    answer = httpx.post(
        f"{web.url}/assets/catalog/sh%C3%B6es/red.jpg?alt=Red+shoes&tag=summer&tag=sale&tag=sale&label.sku=1%202",
        content=JPEG,
        headers={"Content-Type": "image/jpeg"},
    )
    assert answer.status_code == 202
    told = answer.json()
    host = web.staging.host_id
    assert answer.headers["Location"] == f"/ingests/{told['id']}?at={host}"
    assert told == {
        "id": told["id"],
        "assetId": told["id"],
        "state": "staged",
        "path": "/catalog/shöes/red.jpg",
        "size": len(JPEG),
        "sha256": hashlib.sha256(JPEG).hexdigest(),
        "mediaType": "image/jpeg",
        "width": 320,
        "height": 240,
        "durability": "host-disk",
        "links": {"self": f"/ingests/{told['id']}?at={host}", "asset": "/assets/catalog/sh%C3%B6es/red.jpg"},
    }
    entry = web.staging.look(UUID(told["id"]))
    assert entry is not None
    manifest = entry.manifest
    assert (manifest.details.alt, list(manifest.details.tags)) == ("Red shoes", ["summer", "sale"])
    assert dict(manifest.details.labels) == {"sku": "1 2"}
    assert staged(web, answer) == JPEG


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_every_accepted_type_is_known_by_its_bytes(web: Web, kind: str) -> None:
    body = encoded(photo(), kind)
    answer = httpx.post(f"{web.url}/assets/a", content=body, headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["mediaType"]) == (202, MEDIA_TYPES[kind])


def test_the_id_says_when_the_upload_was_complete_however_long_its_body_took(web: Web) -> None:
    """Others judge by it what this host can have told of since (pipeline/uploads/status.py)."""
    with web.connect() as connection:
        connection.sendall(head("POST", "/assets/a", Content_Length=len(JPEG)) + JPEG[:-1])
        while not web.leftovers():
            time.sleep(0.01)
        time.sleep(0.05)
        complete = time.time_ns() // 1_000_000
        connection.sendall(JPEG[-1:])
        upload_id = UUID(read_answer(connection).json()["id"])
    assert upload_id.int >> 80 >= complete


def test_a_chunked_body_is_taken(web: Web) -> None:
    answer = httpx.post(f"{web.url}/assets/a", content=iter([JPEG[:10], JPEG[10:3000], JPEG[3000:]]))
    assert answer.status_code == 202
    assert staged(web, answer) == JPEG


METADATA = json.dumps({"alt": "x", "labels": {"k": "v"}, "tags": ["t"]}).encode()


@pytest.mark.parametrize("order", [("asset", "metadata"), ("metadata", "asset"), ("asset",)])
def test_a_form_is_taken_in_either_order(web: Web, order: tuple[str, ...]) -> None:
    parts = {"asset": ("red.jpg", JPEG, "image/jpeg"), "metadata": (None, METADATA, "application/json")}
    answer = httpx.post(f"{web.url}/assets/a", files=[(name, parts[name]) for name in order])
    assert answer.status_code == 202, answer.text
    entry = web.staging.look(UUID(answer.json()["id"]))
    assert entry is not None
    assert entry.manifest.details.alt == ("x" if "metadata" in order else None)
    assert staged(web, answer) == JPEG


def test_all_that_may_be_said_fits_into_a_form(web: Web) -> None:
    letter = "\U0001f600"  # twelve bytes, as json.dumps escapes it
    labels = {f"{number:02}" + letter * 126: letter * 256 for number in range(50)}
    tags = [f"{number:02}" + letter * 254 for number in range(50)]
    said = json.dumps({"alt": letter * 125, "labels": labels, "tags": tags}).encode()
    answer = httpx.post(f"{web.url}/assets/a", files={"metadata": (None, said), "asset": ("a.jpg", JPEG)})
    assert answer.status_code == 202, answer.text
    entry = web.staging.look(UUID(answer.json()["id"]))
    assert entry is not None
    assert (dict(entry.manifest.details.labels), list(entry.manifest.details.tags)) == (labels, tags)


@pytest.mark.parametrize("target", ["/%61ssets/a", "http://localhost/assets/a", "/assets/a#part", "/assets/%61?"])
def test_one_address_has_several_spellings(web: Web, target: str) -> None:
    answer = web.exchange(head("POST", target, Content_Length=len(JPEG)) + JPEG)
    assert (answer.status, answer.json()["path"]) == (202, "/a")


def test_a_form_larger_than_every_buffer_arrives_whole(web: Web) -> None:
    body = JPEG + bytes(range(256)) * 4 * 3000 + b"\r\n--" * 1000
    answer = httpx.post(f"{web.url}/assets/a", files={"asset": ("a.jpg", body)})
    assert answer.status_code == 202
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert staged(web, answer) == body


def digest_of(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
def test_a_digest_that_holds_is_accepted(web: Web, field: str) -> None:
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG, headers={field: digest_of(JPEG) + ", md5=:AAAA:"})
    assert answer.status_code == 202


def test_a_part_carries_its_own_digest(web: Web) -> None:
    for body, status in ((JPEG, 202), (b"other", 422)):
        file = ("a.jpg", JPEG, "image/jpeg", {"Content-Digest": digest_of(body)})
        answer = httpx.post(f"{web.url}/assets/a", files={"asset": file})
        assert answer.status_code == status


def test_a_form_as_a_whole_may_carry_a_digest(web: Web) -> None:
    request = httpx.Request("POST", f"{web.url}/assets/a", files={"asset": ("a.jpg", JPEG)})
    form = request.read()
    for promised, status in ((form, 202), (JPEG, 422)):
        headers = {"Content-Type": request.headers["Content-Type"], "Content-Digest": digest_of(promised)}
        assert httpx.post(request.url, content=form, headers=headers).status_code == status


def test_waiting_without_anybody_at_work_ends_with_202(web: Web) -> None:
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG, headers={"Prefer": "respond-async, wait=1"})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_who_comes_when_a_third_of_the_threads_wait_is_not_kept(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__THREADS=9)
    request = head("POST", "/assets/a", Content_Length=len(JPEG), Prefer="wait=10") + JPEG
    with ExitStack() as stack:
        for number in range(3):
            stack.enter_context(web.connect(f"127.0.0.{2 + number}")).sendall(request)
        while len(web.leftovers()) < 3:
            time.sleep(0.05)
        time.sleep(0.5)
        began = time.monotonic()
        assert web.exchange(request).status == 202
        assert time.monotonic() - began < 5


def test_a_failure_meanwhile_is_the_answer_to_who_waits(web: Web) -> None:
    answers: list[httpx.Response] = []
    staging = web.staging
    others = set(staging.entries())

    def ask() -> None:
        answers.append(httpx.post(f"{web.url}/assets/a", content=JPEG, headers={"Prefer": "wait=20"}, timeout=30))

    client = Thread(target=ask)
    client.start()
    claim = None
    while claim is None:
        claim = next((claim for one in set(staging.entries()) - others if (claim := staging.claim(one))), None)
    with claim:
        claim.start()
        claim.quarantine(FailureReason("bad-image", "the picture is cut"))
    client.join()
    assert (answers[0].status_code, answers[0].json()["code"]) == (422, "bad-image")


def test_a_connection_serves_one_upload_after_another(web: Web) -> None:
    request = head("POST", "/assets/a", Content_Length=len(JPEG)) + JPEG
    with web.connect() as connection:
        connection.sendall(request + request)  # pipelined
        assert [read_answer(connection).status for _ in range(2)] == [202, 202]
        connection.sendall(request)
        assert read_answer(connection).status == 202


def test_100_continue_comes_when_the_body_is_wanted(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(head("POST", "/assets/a", Content_Length=len(JPEG), Expect="100-continue"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(JPEG)
        assert read_answer(connection).status == 202


def test_durability_says_what_syncing_gives(start_web: Callable[..., Web]) -> None:
    web = start_web(STAGING__SYNC="data")
    assert httpx.post(f"{web.url}/assets/a", content=JPEG).json()["durability"] == "host-cache"


def test_the_log_leads_from_the_request_to_the_upload(web: Web) -> None:
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG, headers={"X-Request-ID": "my-request"})
    assert answer.headers["X-Request-ID"] == "my-request"
    [line] = [line for line in web.lines() if line.get("request_id") == "my-request" and line["message"] == "request"]
    assert (line["upload_id"], line["status"]) == (answer.json()["id"], 202)
