"""Originals in an archive, over HTTP: 202 with the job that restores them, and then the bytes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.faults.stack import SETTINGS, Stack
from tests.pictures import encoded, photo
from tests.s3_server import S3Server, s3_server, slow_restorations

STORES = """
default_store = "near"
[stores.near]
kind = "filesystem"
root = "{root}"
tier = "hot"
[stores.ice]
kind = "s3"
bucket = "pictures"
key_prefix = "ice"
endpoint_url = "{endpoint}"
access_key_id = "key"
secret_access_key = "secret"
tier = "cold"
storage_class = "GLACIER"
restore_wait = 2
[[placement]]
match = "/frozen/**"
store = "ice"
[[placement]]
kind = "original"
store = "ice"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        made.make_bucket("pictures")
        yield made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("archive")
    with Stack(home, settings=STORES.format(root=home / "near", endpoint=server.endpoint) + SETTINGS) as made:
        yield made


def bring(stack: Stack, path: str, width: int) -> bytes:
    body = encoded(photo(width, 60), "JPEG")
    assert stack.upload(path, body, wait=20).status == 201
    return body


def ask(stack: Stack, address: str, method: str = "GET", **fields: str) -> httpx.Response:
    return httpx.request(method, f"{stack.url}/assets{address}", headers=fields, timeout=30)


def until_there(stack: Stack, address: str) -> bytes:
    """As a client does it that comes again, if sooner than it is told."""
    last = time.monotonic() + 60
    while (answer := ask(stack, address)).status_code == 202:
        assert time.monotonic() < last, answer.text
        time.sleep(0.3)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_an_archived_original_is_202_with_its_job_and_then_200(stack: Stack, server: S3Server) -> None:
    body = bring(stack, "/bare/a.jpg", 90)
    address, digest = "/bare/a.jpg/-/content", hashlib.sha256(body).hexdigest()
    assert ask(stack, address, "HEAD").status_code == 200
    assert ask(stack, address, **{"If-None-Match": f'"{digest}"'}).status_code == 304
    assert httpx.get(f"{stack.url}/jobs").json()["jobs"] == [], "they need no bytes"
    with slow_restorations(server.endpoint, 0.5):
        time.sleep(0.6)
        first, again = ask(stack, address), ask(stack, address, Range="bytes=0-6")
        assert (first.status_code, again.status_code) == (202, 202)
        said = first.json()
        assert first.headers["Location"] == again.headers["Location"] == f"/jobs/{said['job']}"
        assert (said["code"], said["expectedSeconds"]) == ("restoring", int(first.headers["Retry-After"]))
        assert 1 <= said["expectedSeconds"] <= 2
        assert until_there(stack, address) == body
    job = httpx.get(stack.url + first.headers["Location"])
    assert (job.json()["kind"], job.json()["arguments"]) == ("restore", {"sha256": digest})
    stack.until(lambda: httpx.get(job.url).json()["state"] == "done", 20, "the job is done")
    assert len(httpx.get(f"{stack.url}/jobs").json()["jobs"]) == 1
    assert server.requests("POST", f"pictures/ice/{digest}") == 1, "the archive was asked once"
    part = ask(stack, address, Range="bytes=-7")
    assert (part.status_code, part.content) == (206, body[-7:])


def test_a_variant_of_an_archived_original_is_made_when_the_bytes_are_there(stack: Stack) -> None:
    bring(stack, "/bare/b.jpg", 91)
    assert len(until_there(stack, "/bare/b.jpg/-/content?w=33")) > 0
    [variant] = ask(stack, "/bare/b.jpg/-/info").json()["variants"]
    assert (variant["state"], variant["attempts"]) == ("ready", 1)


def test_an_archived_variant_is_restored_too(stack: Stack) -> None:
    told = bring(stack, "/frozen/c.jpg", 92)
    address = "/frozen/c.jpg/-/content?profile=thumb"
    stack.until(lambda: ask(stack, address).headers.get("Location") is not None, 30, "it is made, and archived")
    assert until_there(stack, address) != told
