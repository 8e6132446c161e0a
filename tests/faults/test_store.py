"""The line over an S3 store that slows down, errs, refuses, loses answers and damages bytes: uploads are accepted all
the same, every one is stored once and with its own bytes, and no innocent one is put aside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from storage.object_keys import named
from tests.faults.checker import World
from tests.faults.clients import CarefulClients
from tests.faults.outage import Uploads
from tests.faults.stack import SETTINGS, Stack
from tests.pictures import encoded, photo
from tests.s3_proxy import (
    CONFLICT,
    FORBIDDEN,
    INTERNAL_ERROR,
    PRECONDITION_FAILED,
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    Delay,
    FlipAnswer,
    FlipRequest,
    LoseAnswer,
    S3Proxy,
    s3_proxy,
)
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
multipart_threshold = "5MiB"
multipart_part_size = "5MiB"
[variants]
eager = "fleet"
"""


class S3Stack(Stack):
    """The checker is shown what is really in the bucket, past the proxy."""

    def __init__(self, home: Path, server: S3Server, proxy: S3Proxy) -> None:
        super().__init__(home, settings=SETTINGS + STORE.format(bucket=BUCKET, endpoint=proxy.endpoint))
        self._bucket = server.client()
        self._mirror = home / "mirror"
        self._mirror.mkdir()

    def world(self) -> World:
        pages = self._bucket.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        there = {Path(key).name: key for key in keys if named(Path(key).name) is not None}
        for copy in self._mirror.iterdir():
            if copy.name not in there:
                copy.unlink()
        for name, key in there.items():
            if not (self._mirror / name).exists():  # an object never changes
                with contextlib.suppress(self._bucket.exceptions.NoSuchKey):  # collected since it was listed
                    (self._mirror / name).write_bytes(self._bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        return World.look(self.services["database_url"], self._mirror, self.home / "staging")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture(scope="module")
def module_proxy(server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(server.endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, server: S3Server, module_proxy: S3Proxy) -> Iterator[Stack]:
    with S3Stack(tmp_path_factory.mktemp("store"), server, module_proxy) as made:
        yield made


@pytest.fixture
def proxy(module_proxy: S3Proxy) -> Iterator[S3Proxy]:
    module_proxy.clear()
    yield module_proxy
    module_proxy.clear()


def noise(seed: int) -> bytes:
    """A picture that does not compress, so that it goes to the store in parts."""
    pixels = np.random.default_rng(seed).integers(0, 256, (1400, 1400, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG", compress_level=0)


def assert_all_is_well(stack: Stack, proxy: S3Proxy) -> None:
    """The faults are over: nothing is lost, and nothing innocent has failed."""
    proxy.stop_faults()
    stack.check()
    assert stack.sql("SELECT id, kind, detail FROM failure") == []
    assert stack.sql("SELECT id FROM variant WHERE state = 'failed'") == []


def test_slow_and_erring(stack: Stack, proxy: S3Proxy) -> None:
    faults = [
        proxy.inject(SLOW_DOWN, rate=0.3),
        proxy.inject(INTERNAL_ERROR, rate=0.1),
        proxy.inject(Delay(0.05)),
    ]
    with CarefulClients(stack, "slow") as clients:
        clients.flows(15)
    assert all(fault.fired for fault in faults)
    assert_all_is_well(stack, proxy)


def test_answers_are_lost_and_connections_cut(stack: Stack, proxy: S3Proxy) -> None:
    faults = [
        proxy.inject(LoseAnswer(), "PutObject", "CompleteMultipartUpload", "DeleteObjects", rate=0.4),
        proxy.inject(CutRequest(), "PutObject", "UploadPart", rate=0.2),
        proxy.inject(CutAnswer(), "GetObject", rate=0.3),
        proxy.inject(PRECONDITION_FAILED, "PutObject", times=3),
        proxy.inject(CONFLICT, "PutObject", "CompleteMultipartUpload", times=3),
    ]
    with CarefulClients(stack, "lost") as clients:
        stack.upload("/lost/in-parts", noise(1))
        clients.flows(15)
        stack.until(lambda: all(fault.fired for fault in faults), 30, "every fault has happened")
    assert_all_is_well(stack, proxy)


def test_a_download_that_breaks_off_at_once_is_told_as_an_outage(stack: Stack, proxy: S3Proxy) -> None:
    data = encoded(photo(200, 150), "JPEG")
    assert stack.upload("/bare/read", data, wait=20).status == 201
    proxy.inject(CutAnswer(), "GetObject")
    answer = httpx.get(f"{stack.url}/assets/bare/read/-/content", timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
    proxy.stop_faults()
    assert httpx.get(f"{stack.url}/assets/bare/read/-/content", timeout=20).content == data


def test_forbidden_for_a_while(stack: Stack, proxy: S3Proxy) -> None:
    proxy.inject(FORBIDDEN)
    with Uploads(stack, "/store/forbidden") as uploads:
        uploads.until(15)
        stack.until(lambda: len(proxy.outcomes("PutObject")) >= 5, 30, "the store has refused some")
        assert set(proxy.outcomes("PutObject")) == {"403 AccessDenied"}
        assert stack.request("GET", "/readyz?for=read") == 503
        assert stack.request("GET", "/readyz?for=accept") == 200
    assert_all_is_well(stack, proxy)


def test_bytes_are_damaged_on_the_way(stack: Stack, proxy: S3Proxy) -> None:
    faults = [
        proxy.inject(FlipRequest(), "PutObject", rate=0.4),
        proxy.inject(FlipRequest(), "UploadPart", times=2),
        proxy.inject(FlipAnswer(), "GetObject", times=2),  # three would use up a variant's attempts
    ]
    with Uploads(stack, "/store/damaged") as uploads:
        stack.upload("/store/in-parts", noise(2))
        uploads.until(15)
        stack.until(lambda: all(fault.fired for fault in faults), 30, "every fault has happened")
    assert proxy.outcomes("UploadPart").count("400 BadDigest") == 2
    assert "400 BadDigest" in proxy.outcomes("PutObject")
    assert_all_is_well(stack, proxy)
