"""The line over an S3 store, with eager variants left to the fleet."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.faults.stack import SETTINGS, Stack
from tests.pictures import encoded, photo
from tests.s3_server import S3Server, s3_server

BUCKET = "pictures"

STORE = """
[stores.main]
kind = "s3"
bucket = "{bucket}"
key_prefix = "line"
endpoint_url = "{endpoint}"
access_key_id = "key"
secret_access_key = "secret"
[variants]
eager = "fleet"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[Stack]:
    settings = SETTINGS.replace("threads = 32", "threads = 256") + STORE.format(bucket=BUCKET, endpoint=server.endpoint)
    with Stack(tmp_path_factory.mktemp("s3"), settings=settings) as made:
        yield made


def is_ready(stack: Stack, upload_id: object) -> bool:
    return httpx.get(f"{stack.url}/ingests/{upload_id}").json().get("state") == "ready"


def keys_of(server: S3Server, data: bytes) -> list[str]:
    return [key for key in server.keys(BUCKET) if key.startswith(f"line/{hashlib.sha256(data).hexdigest()}.")]


def test_the_fleet_makes_the_eager_variants(stack: Stack, server: S3Server) -> None:
    data = encoded(photo(200, 160), "JPEG")
    told = stack.upload("/fleet/a.jpg", data, wait=20)
    assert told.status == 201
    stack.until(lambda: is_ready(stack, told.upload_id), 20, "the eager variants are there")
    url = f"{stack.url}/assets/fleet/a.jpg"
    variants = httpx.get(f"{url}/-/info").json()["variants"]
    assert {(one["profile"], one["state"], one["attempts"]) for one in variants} == {
        ("thumb", "ready", 1),
        ("square", "ready", 1),
    }
    assert len(keys_of(server, data)) == 1
    assert server.requests("GET", f"{BUCKET}/{keys_of(server, data)[0]}") == 1, "one download for both"
    assert httpx.get(f"{url}/-/content").content == data
    part = httpx.get(f"{url}/-/content", headers={"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, data[-7:])
    sizes = {one["profile"]: one["size"] for one in variants}
    assert len(httpx.get(f"{url}/-/content?profile=square").content) == sizes["square"]


def test_a_hundred_requests_download_once_and_render_once(stack: Stack, server: S3Server) -> None:
    data = encoded(photo(900, 700), "JPEG")
    assert stack.upload("/bare/hundred.jpg", data, wait=20).status == 201
    url = f"{stack.url}/assets/bare/hundred.jpg"

    def ask(_: int) -> tuple[int, bytes]:
        """As a client does: it comes again after 202, and after 503 when `Retry-After` says."""
        last = time.monotonic() + 60
        with httpx.Client(timeout=30) as client:
            while True:
                answer = client.get(f"{url}/-/content?w=77&format=png")
                if answer.status_code not in (202, 503) or time.monotonic() > last:
                    return answer.status_code, answer.content
                time.sleep(0.3 if answer.status_code == 202 else int(answer.headers["Retry-After"]))

    with ThreadPoolExecutor(100) as pool:
        answers = Counter(pool.map(ask, range(100)))
    assert len(answers) == 1, [(status, count, content[:300]) for (status, content), count in answers.items()]
    [(status, content)] = answers
    assert status == 200
    [variant] = httpx.get(f"{url}/-/info").json()["variants"]
    assert (variant["state"], variant["attempts"]) == ("ready", 1)
    assert server.requests("GET", f"{BUCKET}/{keys_of(server, data)[0]}") == 1
    assert server.requests("PUT", f"{BUCKET}/{keys_of(server, content)[0]}") == 1


def test_a_store_that_hangs_for_a_while_costs_nothing(stack: Stack, server: S3Server) -> None:
    data = encoded(photo(120, 100), "PNG")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        told = stack.upload("/fleet/hang.png", data)
        assert told.status == 202
        stack.until(lambda: stack.request("GET", "/readyz?for=read") == 503, 20, "the store is known to hang")
        assert stack.request("GET", "/readyz?for=accept") == 200
    finally:
        os.kill(server.pid, signal.SIGCONT)
    stack.until(lambda: is_ready(stack, told.upload_id), 60, "the upload is ready")


def test_purged_objects_leave_the_bucket(stack: Stack, server: S3Server) -> None:
    data = encoded(photo(130, 110), "PNG")
    told = stack.upload("/fleet/gone.png", data, wait=20)
    stack.until(lambda: is_ready(stack, told.upload_id), 20, "the eager variants are there")
    variants = httpx.get(f"{stack.url}/assets/fleet/gone.png/-/info").json()["variants"]
    hashes = [hashlib.sha256(data).hexdigest(), *(one["sha256"] for one in variants)]
    assert sum(any(one in key for one in hashes) for key in server.keys(BUCKET)) == 3
    assert stack.request("DELETE", "/assets/fleet/gone.png/-/entry/0?purge=true") == 200
    assert stack.request("GET", "/assets/fleet/gone.png") == 404
    stack.until(lambda: not any(one in key for one in hashes for key in server.keys(BUCKET)), 20, "the bytes are gone")
