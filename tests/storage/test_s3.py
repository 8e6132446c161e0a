"""The S3 store against the contract, on moto's server; then what only S3 has."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from threading import Event
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.exceptions import ReadTimeoutError

from core.errors import Corrupt, Forbidden, NotFound, StoreUnavailable
from storage.interface import ObjectStore
from storage.s3 import multipart
from storage.s3.options import S3Options
from storage.s3.service import make_client
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, ObjectStoreContract, fill, keys, read, sha256
from tests.storage.s3_options import options

_numbers = itertools.count()


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> str:
    """Make a bucket for each module: the server is there for all modules of the process, and one leaves what another
    counts."""
    name = f"pictures-{next(_numbers)}"
    client = make_client("main", options(s3_endpoint, name))
    client.create_bucket(Bucket=name)
    client.close()
    return name


@pytest.fixture(scope="module")
def shared(s3_endpoint: str, bucket: str) -> Iterator[S3Store]:
    """One client for the module: making it takes longer than most tests."""
    store = S3Store("main", options(s3_endpoint, bucket))
    yield store
    store.close()


@pytest.fixture
def s3(shared: S3Store) -> Iterator[S3Store]:
    yield shared
    shared.delete(keys(shared))


class TestS3Store(ObjectStoreContract):
    tells_age_of_unfinished = False  # moto says of every upload that it began in 2010

    @pytest.fixture
    def store(self, s3: S3Store) -> ObjectStore:
        return s3

    @pytest.fixture
    def residue(self, s3: S3Store, bucket: str) -> Callable[[], list[str]]:
        def uploads() -> list[str]:
            return [upload["Key"] for upload in s3._client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

        return uploads


def test_stores_below_prefixes_of_one_bucket_do_not_see_each_other(s3_endpoint: str, bucket: str) -> None:
    store = S3Store("main", options(s3_endpoint, bucket, key_prefix="a/b"))
    near = S3Store("near", options(s3_endpoint, bucket, key_prefix="a/bc/"))
    for each in (store, near):
        fill(each, "c/d")
        fill(each, "e")
    assert keys(store) == ["c/d", "e"]
    assert keys(store, after="c/d") == ["e"]
    assert keys(store, "c") == ["c/d"]
    store.delete(["c/d", "e"])
    assert keys(store) == []
    assert keys(near) == ["c/d", "e"]
    near.delete(keys(near))
    for each in (store, near):
        each.close()


def test_the_hash_is_kept_with_the_object(s3: S3Store) -> None:
    large = bytes(11 * MIB)
    fill(s3, "small", b"abc")
    fill(s3, "large", large)
    assert s3.head("small").sha256 == sha256(b"abc")
    assert s3.head("large").sha256 == sha256(large)


def test_a_link_works_without_credentials(s3: S3Store) -> None:
    fill(s3, "a/b", b"abc")
    link = s3.url("a/b", ttl=timedelta(minutes=5), download_name='Grüße "1"\r\n.png')
    assert link is not None
    asked = parse_qs(urlsplit(link).query)
    assert asked["X-Amz-Expires"] == ["300"]
    assert asked["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert asked["response-content-disposition"] == [
        "attachment; filename=\"Gr__e _1___.png\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%221%22%0D%0A.png"
    ]
    answer = httpx.get(link, trust_env=False)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"abc", "image/png")


def test_a_link_without_a_name(s3: S3Store) -> None:
    link = s3.url("a", ttl=timedelta(days=30))
    assert link is not None
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["604800"]
    assert "disposition" not in link


def test_a_missing_bucket_is_not_a_missing_object(s3_endpoint: str) -> None:
    store = S3Store("main", options(s3_endpoint, "no-such-bucket"))
    for call in (lambda: fill(store, "a"), lambda: read(store, "a"), lambda: store.head("a"), lambda: keys(store)):
        with pytest.raises(StoreUnavailable):
            call()
    store.close()


def test_virtual_addressing_names_the_bucket_in_the_host() -> None:
    store = S3Store("main", options("http://s3.example.org", "pictures", addressing_style="virtual"))
    assert str(store.url("a", ttl=timedelta(minutes=1))).startswith("http://pictures.s3.example.org/a?")
    store.close()


def test_nobody_listens() -> None:
    store = S3Store("main", options("http://127.0.0.1:1", "pictures"))
    with pytest.raises(StoreUnavailable):
        store.head("a")
    store.close()


def test_a_failing_part_aborts_the_upload(s3: S3Store, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3._client
    send = client.upload_part

    def fail(**given: Any) -> Any:
        if given["PartNumber"] == 2:
            given["UploadId"] = "another"
        return send(**given)

    monkeypatch.setattr(client, "upload_part", fail)
    with pytest.raises(StoreUnavailable):
        fill(s3, "a", bytes(16 * MIB))
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    with pytest.raises(NotFound):
        s3.head("a")


def test_a_service_that_hangs_at_the_abort_does_not_hide_the_failure(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off() -> None:
        raise ReadTimeoutError(endpoint_url="http://127.0.0.1")

    client = s3._client
    hang = Event()
    monkeypatch.setattr(multipart, "ABORT_SECONDS", 0.2)
    monkeypatch.setattr(client, "abort_multipart_upload", lambda **_: hang.wait(60))
    monkeypatch.setattr(client, "complete_multipart_upload", lambda **_: cut_off())
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        fill(s3, "a", bytes(16 * MIB))
    assert time.monotonic() - began < 30
    hang.set()


def test_an_upload_completed_with_its_answer_lost_counts(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3._client
    complete = client.complete_multipart_upload

    def twice(**given: Any) -> Any:
        complete(**given)
        return complete(**given)  # as botocore repeats it when no answer came

    monkeypatch.setattr(client, "complete_multipart_upload", twice)
    data = bytes(11 * MIB)
    assert fill(s3, "a", data).size == len(data)


def test_no_credentials_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    store = S3Store("main", S3Options(bucket="pictures", region="eu-central-1"))
    with pytest.raises(Forbidden):
        store.put("a", io.BytesIO(b"abc"), size=3, sha256=sha256(b"abc"), media_type="image/png")
    store.close()


def test_a_corrupt_body_is_never_sent(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3._client, "put_object", lambda **_: pytest.fail("sent"))
    with pytest.raises(Corrupt):
        s3.put("a", io.BytesIO(b"abd"), size=3, sha256=sha256(b"abc"), media_type="image/png")
