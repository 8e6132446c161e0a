"""What each single fault between the S3 store and its service must come to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.errors import AlreadyExists, Corrupt, Forbidden, NotFound, StoreUnavailable
from storage.interface import Span
from storage.local_copies import LocalCopies
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, fill, keys, read, sha256
from tests.s3_proxy import (
    CONFLICT,
    FORBIDDEN,
    INTERNAL_ERROR,
    PRECONDITION_FAILED,
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    Fault,
    FlipAnswer,
    FlipRequest,
    Hide,
    LoseAnswer,
    S3Proxy,
)
from tests.storage.proxied import BUCKET, open_store, unfinished

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.usefixtures("short_throttling")

BLOB = f"{1:064x}.1"
SMALL = b"abc"
LARGE = bytes(10 * MIB + 1)
"""Three parts."""


@pytest.fixture(scope="module")
def shared(session_proxy: S3Proxy) -> Iterator[S3Store]:
    store = open_store(session_proxy.endpoint, attempt_timeout=1.0)
    yield store
    store.close()


@pytest.fixture
def store(shared: S3Store, bucket_client: S3Client, proxy: S3Proxy) -> Iterator[S3Store]:
    """Without a fault so far."""
    yield shared
    proxy.stop_faults()
    assert unfinished(bucket_client) == []
    shared.delete(keys(shared))


def really(client: S3Client, key: str) -> bytes:
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


@pytest.mark.parametrize(
    "fault",
    [SLOW_DOWN, INTERNAL_ERROR, LoseAnswer(), LoseAnswer(seconds=1.5), CutRequest(), FlipRequest()],
    ids=["slow-down", "internal-error", "answer-lost", "answer-timed-out", "request-cut", "bit-flipped"],
)
@pytest.mark.parametrize(
    ("operation", "data"),
    [("PutObject", SMALL), ("UploadPart", LARGE), ("CompleteMultipartUpload", LARGE)],
    ids=["whole", "part", "end"],
)
def test_a_put_in_which_one_request_fails(
    store: S3Store, proxy: S3Proxy, bucket_client: S3Client, operation: str, data: bytes, fault: Fault
) -> None:
    """It is sent again, and the object is there once and whole. What came damaged was refused."""
    injection = proxy.inject(fault, operation, times=1)
    assert fill(store, "a", data).sha256 == sha256(data)
    assert injection.fired == 1
    assert really(bucket_client, "a") == data
    assert keys(store) == ["a"]
    if isinstance(fault, FlipRequest):
        assert proxy.outcomes(operation)[0] in ("400 BadDigest", "400 XAmzContentSHA256Mismatch")


def test_an_upload_that_began_and_was_never_heard_of_is_swept(
    store: S3Store, proxy: S3Proxy, bucket_client: S3Client
) -> None:
    proxy.inject(LoseAnswer(), "CreateMultipartUpload", times=1)
    fill(store, BLOB, LARGE)
    assert unfinished(bucket_client) == [BLOB]
    assert store.sweep_unfinished() == 1


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "in-parts"])
def test_bodies_carry_a_digest_beside_the_signature(store: S3Store, proxy: S3Proxy, data: bytes) -> None:
    """Over TLS the signature does not cover the body."""
    fill(store, "a", data)
    sent = [one for one in proxy.seen if one.operation in ("PutObject", "UploadPart")]
    assert sent
    assert all(one.digests - {"x-amz-content-sha256"} for one in sent)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "in-parts"])
@pytest.mark.parametrize("fault", [PRECONDITION_FAILED, CONFLICT], ids=["taken", "contended"])
def test_a_key_that_is_said_to_be_taken_and_is_not(
    store: S3Store, proxy: S3Proxy, bucket_client: S3Client, fault: Fault, data: bytes
) -> None:
    injection = proxy.inject(fault, "PutObject", "CompleteMultipartUpload", times=1)
    fill(store, "a", data)
    assert injection.fired == 1
    assert really(bucket_client, "a") == data


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "in-parts"])
@pytest.mark.parametrize(
    "fault",
    [SLOW_DOWN, PRECONDITION_FAILED, CONFLICT, FlipRequest(), CutRequest()],
    ids=["slow-down", "taken", "contended", "bit-flipped", "request-cut"],
)
def test_a_put_that_never_gets_through_blames_the_store(
    proxy: S3Proxy, bucket_client: S3Client, fault: Fault, data: bytes
) -> None:
    """Never the body: `Corrupt` would put an innocent upload aside."""
    store = open_store(proxy.endpoint, max_attempts=2)
    proxy.inject(
        fault, "PutObject", "UploadPart" if isinstance(fault, CutRequest | FlipRequest) else "CompleteMultipartUpload"
    )
    with pytest.raises(StoreUnavailable):
        fill(store, "a", data)
    store.close()
    assert "Contents" not in bucket_client.list_objects_v2(Bucket=BUCKET)
    assert unfinished(bucket_client) == []


def test_forbidden_is_neither_missing_nor_away(store: S3Store, proxy: S3Proxy) -> None:
    fill(store, "a", SMALL)
    proxy.inject(FORBIDDEN)
    for call in (
        lambda: fill(store, "b"),
        lambda: fill(store, "b", LARGE),
        lambda: read(store, "a"),
        lambda: store.head("a"),
        lambda: store.head("never-was"),
        lambda: keys(store),
        lambda: store.delete(["a"]),
        store.sweep_unfinished,
    ):
        with pytest.raises(Forbidden):
            call()
    assert store.breaker == "closed"


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL_ERROR, LoseAnswer()], ids=["slow-down", "error", "lost"])
def test_asking_again_is_the_stores_task(store: S3Store, proxy: S3Proxy, fault: Fault) -> None:
    fill(store, "a", SMALL)
    for operation, call in {
        "GetObject": lambda: read(store, "a"),
        "HeadObject": lambda: store.head("a"),
        "ListObjectsV2": lambda: keys(store),
        "DeleteObjects": lambda: store.delete(["a"]),
    }.items():
        injection = proxy.inject(fault, operation, times=1)
        call()
        assert injection.fired == 1
    with pytest.raises(NotFound):
        store.head("a")


@pytest.mark.parametrize("span", [None, Span(1, 200_000)], ids=["whole", "range"])
def test_a_download_that_breaks_off_is_not_a_short_object(store: S3Store, proxy: S3Proxy, span: Span | None) -> None:
    fill(store, "a", bytes(300_000))
    proxy.inject(CutAnswer(), "GetObject", times=1)
    with pytest.raises(StoreUnavailable):
        read(store, "a", span)
    assert len(read(store, "a", span)) == (300_000 if span is None else 199_999)


def test_a_damaged_download_is_noticed_where_originals_are_rendered(
    store: S3Store, proxy: S3Proxy, tmp_path: Path
) -> None:
    """`open` gives bytes as they come, and the local copy that decoders get is verified: nothing wrong stays."""
    data = bytes(100_000)
    copies = LocalCopies(tmp_path, MIB)
    fill(store, "a", data)
    proxy.inject(FlipAnswer(), "GetObject", times=2)
    assert read(store, "a") != data
    with pytest.raises(Corrupt), copies.open(store, "a", size=len(data), sha256=sha256(data)):
        pytest.fail("given out")
    with copies.open(store, "a", size=len(data), sha256=sha256(data)) as copy:
        assert copy.read() == data


def test_what_a_listing_hides_is_there_all_the_same(store: S3Store, proxy: S3Proxy, bucket_client: S3Client) -> None:
    for key in ("a", "b", "c"):
        fill(store, key, SMALL)
    proxy.inject(Hide("b"), "ListObjectsV2")
    assert keys(store) == ["a", "c"]
    assert store.head("b").size == len(SMALL)
    fill(store, "b", SMALL)
    with pytest.raises(AlreadyExists):
        fill(store, "b", b"other")
    store.delete(["b"])
    assert [one["Key"] for one in bucket_client.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["a", "c"]
