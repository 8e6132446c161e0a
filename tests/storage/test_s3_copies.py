"""Copies within one service: no byte comes here."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier
from typing import Any

import pytest

from core.errors import AlreadyExists, NotFound, StoreUnavailable
from storage.memory import MemoryOptions, MemoryStore
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, fill, keys, read, sha256
from tests.storage.s3_options import options
from tests.storage.s3_script import Answer, Asked, Script, script, stored
from tests.storage.test_s3 import bucket, shared

__all__ = ["bucket", "script", "shared"]

SMALL = b"abc"
LARGE = bytes(range(256)) * (16 * MIB // 256) + b"!"


@pytest.fixture
def source(s3_endpoint: str, bucket: str) -> Iterator[S3Store]:
    store = S3Store("source", options(s3_endpoint, bucket, key_prefix="from"))
    yield store
    store.delete(keys(store))
    store.close()


@pytest.fixture
def target(s3_endpoint: str, shared: S3Store) -> Iterator[S3Store]:
    """Another bucket of the same service."""
    shared._client.create_bucket(Bucket="copies")
    more = {"multipart_copy_threshold": 8 * MIB, "multipart_copy_chunk_size": 6 * MIB, "multipart_copy_jobs": 3}
    store = S3Store("target", options(s3_endpoint, "copies", key_prefix="to", **more))
    yield store
    store.delete(keys(store))
    store.close()
    shared._client.delete_bucket(Bucket="copies")


class Calls:
    """What is asked of a store's client, by operation."""

    def __init__(self, store: S3Store) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []
        store._client.meta.events.register("provide-client-params.s3", self._note)

    def _note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.made.append((model.name, dict(params)))

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.made if name == operation]


def test_a_small_object_is_copied_in_one_request(source: S3Store, target: S3Store) -> None:
    fill(source, "a/b", SMALL)
    calls = Calls(target)
    copied = target.copy_from(source, "a/b", "c")
    assert copied is not None
    assert (copied.key, copied.size, copied.sha256) == ("c", 3, sha256(SMALL))
    assert read(target, "c") == SMALL
    assert [name for name, _ in calls.made if name not in ("HeadObject", "GetObject")] == ["CopyObject"]
    assert keys(target) == ["c"]


def test_a_large_object_is_copied_in_parts(source: S3Store, target: S3Store) -> None:
    fill(source, "large", LARGE)
    calls = Calls(target)
    copied = target.copy_from(source, "large", "copy")
    assert copied is not None
    assert copied.sha256 == target.head("copy").sha256 == sha256(LARGE)
    assert read(target, "copy") == LARGE
    spans = sorted(params["CopySourceRange"] for params in calls.of("UploadPartCopy"))
    assert len(spans) == 3
    assert calls.of("CopyObject") == calls.of("UploadPart") == []
    kind = target._client.head_object(Bucket="copies", Key="to/copy")["ContentType"]
    assert kind == "image/png"


def test_the_parts_of_a_copy_are_under_way_together(
    source: S3Store, target: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, "large", LARGE)
    together = Barrier(3, timeout=60)
    copy = target._client.upload_part_copy

    def meet(**given: Any) -> Any:
        together.wait()
        return copy(**given)

    monkeypatch.setattr(target._client, "upload_part_copy", meet)
    assert target.copy_from(source, "large", "large")


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_copy_creates_only(source: S3Store, target: S3Store, data: bytes) -> None:
    fill(source, "a", data)
    assert target.copy_from(source, "a", "a")
    calls = Calls(target)
    assert target.copy_from(source, "a", "a")
    assert [name for name, _ in calls.made] == ["HeadObject"], "equal bytes are not copied again"
    target.delete(["a"])
    fill(target, "a", b"other")
    with pytest.raises(AlreadyExists):
        target.copy_from(source, "a", "a")
    assert read(target, "a") == b"other"


def test_an_object_of_another_program_has_no_hash_and_is_copied(source: S3Store, target: S3Store, bucket: str) -> None:
    target._client.put_object(Bucket=bucket, Key="from/foreign", Body=SMALL)
    copied = target.copy_from(source, "foreign", "foreign")
    assert copied is not None
    assert (copied.size, copied.sha256) == (3, None)
    assert read(target, "foreign") == SMALL


def test_a_part_that_fails_leaves_nothing(source: S3Store, target: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(source, "large", LARGE)
    copy = target._client.upload_part_copy

    def fail(**given: Any) -> Any:
        if given["PartNumber"] == 2:
            raise StoreUnavailable("not this one")
        return copy(**given)

    monkeypatch.setattr(target._client, "upload_part_copy", fail)
    with pytest.raises(StoreUnavailable, match="not this one"):
        target.copy_from(source, "large", "large")
    assert target._client.list_multipart_uploads(Bucket="copies").get("Uploads", []) == []
    assert keys(target) == []


def test_what_is_not_there_is_not_copied(source: S3Store, target: S3Store) -> None:
    with pytest.raises(NotFound):
        target.copy_from(source, "none", "none")


def test_other_stores_are_for_the_caller_to_stream(s3_endpoint: str, source: S3Store, target: S3Store) -> None:
    fill(source, "a", SMALL)
    stranger = S3Store("stranger", options(s3_endpoint, "copies", access_key_id="another"))
    elsewhere = S3Store("elsewhere", options("http://127.0.0.1:1", "copies"))
    calls = Calls(target)
    for other in (stranger, elsewhere, MemoryStore("memory", MemoryOptions())):
        assert target.copy_from(other, "a", "a") is None
    assert stranger.copy_from(source, "a", "a") is None
    assert calls.made == []
    for store in (stranger, elsewhere):
        store.close()


def test_a_service_that_cannot_copy(script: Script) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.method == "HEAD":
            return stored(SMALL, sha256(SMALL)) if "/from/" in asked.path else Answer(404)
        return Answer(501, "NotImplemented")

    script.always = answer
    source, target = script.open_store(key_prefix="from"), script.open_store(key_prefix="to")
    assert target.copy_from(source, "a", "a") is None
    for store in (source, target):
        store.close()


def test_every_object_gets_the_storage_class(s3_endpoint: str, bucket: str, source: S3Store) -> None:
    small = {"multipart_copy_threshold": 8 * MIB, "multipart_copy_chunk_size": 6 * MIB}
    store = S3Store("cold", options(s3_endpoint, bucket, key_prefix="cold", storage_class="STANDARD_IA", **small))
    for key, data in (("small", SMALL), ("large", LARGE)):
        fill(store, key, data)
        fill(source, f"copied-{key}", data)
        store.copy_from(source, f"copied-{key}", f"copied-{key}")
    classes = {
        item["Key"]: item["StorageClass"]
        for item in store._client.list_objects_v2(Bucket=bucket, Prefix="cold/")["Contents"]
    }
    assert set(classes.values()) == {"STANDARD_IA"}
    assert len(classes) == 4
    store.delete(keys(store))
    store.close()
