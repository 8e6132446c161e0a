"""The line over SeaweedFS: uploads, variants, ranges, purges, and what becomes of them when its server is killed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from core.sections import MIB
from tests.faults.stack import SETTINGS, Stack
from tests.pictures import encoded, photo
from tests.seaweedfs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedServer, seaweedfs_server

BUCKET = "pictures"
KILLS = 5

STORE = f"""
[stores.main]
kind = "s3"
bucket = "{BUCKET}"
key_prefix = "line"
endpoint_url = "{{endpoint}}"
access_key_id = "{ACCESS_KEY_ID}"
secret_access_key = "{SECRET_ACCESS_KEY}"
addressing_style = "path"
multipart_part_size = "5MiB"
[variants]
eager = "fleet"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweedfs_server(tmp_path_factory.mktemp("seaweedfs")) as made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, server: SeaweedServer) -> Iterator[Stack]:
    settings = SETTINGS + STORE.format(endpoint=server.endpoint)
    with Stack(tmp_path_factory.mktemp("line"), settings=settings) as made:
        yield made


def is_ready(stack: Stack, upload_id: object) -> bool:
    return bool(stack.ingest(upload_id).get("state") == "ready")  # type: ignore[arg-type]


def test_a_picture_and_its_variants(stack: Stack, server: SeaweedServer) -> None:
    data = encoded(photo(200, 160), "JPEG")
    told = stack.upload("/line/a.jpg", data, wait=20)
    assert told.status == 201
    stack.until(lambda: is_ready(stack, told.upload_id), 30, "the eager variants are there")
    url = f"{stack.url}/assets/line/a.jpg"
    variants = httpx.get(f"{url}/-/info").json()["variants"]
    assert {(one["profile"], one["state"]) for one in variants} == {("thumb", "ready"), ("square", "ready")}
    assert httpx.get(f"{url}/-/content").content == data
    part = httpx.get(f"{url}/-/content", headers={"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, data[-7:])
    hashes = [hashlib.sha256(data).hexdigest(), *(one["sha256"] for one in variants)]
    assert sum(any(one in key for one in hashes) for key in server.keys(BUCKET)) == 3
    assert stack.request("DELETE", "/assets/line/a.jpg/-/entry/0?purge=true") == 200
    stack.until(lambda: not any(one in key for one in hashes for key in server.keys(BUCKET)), 30, "the bytes are gone")


def test_a_body_in_many_parts(stack: Stack) -> None:
    data = encoded(Image.effect_noise((4000, 3000), 100), "PNG")
    assert len(data) > 8 * MIB
    assert stack.upload("/bare/large.png", data, wait=60, timeout=90).status == 201
    answer = httpx.get(f"{stack.url}/assets/bare/large.png/-/content", timeout=30)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(data).digest()


def test_kills_of_the_server_lose_nothing(stack: Stack, server: SeaweedServer) -> None:
    """Uploads go on while it is killed and started again; what was accepted is stored and comes back."""
    bodies = {f"/line/kill/{number}.jpg": encoded(photo(80 + number, 60), "JPEG") for number in range(60)}
    with ThreadPoolExecutor(4) as pool:
        uploads = [pool.submit(stack.upload_until_accepted, *item, key=item[0]) for item in bodies.items()]
        for _ in range(KILLS):  # in this thread: the server dies with the thread that started it
            server.kill()
            time.sleep(1)
            server.start()
            time.sleep(2)
        told = [upload.result() for upload in uploads]
    for one in told:
        stack.until(lambda one=one: is_ready(stack, one.upload_id), 30, f"{one.path} is ready")  # type: ignore[misc]
    for path, data in bodies.items():
        answer = httpx.get(f"{stack.url}/assets{path}/-/content", timeout=30)
        assert answer.content == data, answer.text[:300]
