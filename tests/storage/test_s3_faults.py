"""What the S3 store makes of a service that refuses, conflicts, breaks off or says nothing: a scripted server."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from core.errors import AlreadyExists, Archived, Forbidden, MillraceError, NotFound, StoreFull, StoreUnavailable
from storage.interface import Span
from storage.s3.errors import Outage
from storage.s3.store import S3Store
from tests.contracts.object_store import fill, keys, read, sha256
from tests.storage.s3_script import Answer, Script, open_store, script, stored, vouching

__all__ = ["script"]


@pytest.fixture
def store(script: Script) -> Iterator[S3Store]:
    made = script.open_store()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", Forbidden),
        (403, "InvalidAccessKeyId", Forbidden),
        (403, "SignatureDoesNotMatch", Forbidden),
        (400, "ExpiredToken", Forbidden),
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", StoreUnavailable),
        (503, "SlowDown", Outage),
        (429, "", Outage),
        (500, "InternalError", Outage),
        (507, "XMinioStorageFull", StoreFull),
        (403, "QuotaExceeded", StoreFull),
        (403, "InvalidObjectState", Archived),
        (403, "ObjectNotInActiveTierError", Archived),
        (503, "GlacierExpeditedRetrievalNotAvailable", StoreUnavailable),
        (400, "AuthorizationHeaderMalformed", StoreUnavailable),
        (418, "", StoreUnavailable),
    ],
)
def test_what_an_answer_means(
    script: Script, store: S3Store, status: int, code: str, error: type[MillraceError]
) -> None:
    script.answers.append(Answer(status, code))
    with pytest.raises(MillraceError) as caught:
        read(store, "a")
    assert type(caught.value) is error
    assert "test-secret" not in caught.value.detail


def test_a_put_is_conditional_and_a_conflict_is_tried_again(script: Script, store: S3Store) -> None:
    script.answers += [Answer(409, "ConditionalRequestConflict"), Answer(200, headers=vouching(b"abc"))]
    assert fill(store, "a", b"abc").size == 3
    assert script.requests == [("PUT", "*"), ("PUT", "*")]


def test_a_conflict_that_does_not_end(script: Script, store: S3Store) -> None:
    script.answers += [Answer(409, "ConditionalRequestConflict")] * 4
    with pytest.raises(StoreUnavailable):
        fill(store, "a", b"abc")


def test_a_body_that_was_damaged_on_its_way_is_sent_again(script: Script) -> None:
    script.answers += [Answer(400, "BadDigest"), Answer(200, headers=vouching(b"abc"))]
    store = script.open_store(max_attempts=2)
    assert fill(store, "a", b"abc").size == 3
    assert [one.body for one in script.asked] == [b"abc", b"abc"]
    store.close()


def test_an_answer_that_breaks_off_is_no_answer(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(200, body=b"<ListBucketResult><Contents><Key>a"))
    with pytest.raises(Outage):
        keys(store)


@pytest.mark.parametrize("digest", [sha256(b"abc"), None])
def test_a_taken_key_with_the_same_object_is_success(script: Script, store: S3Store, digest: bytes | None) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), stored(b"abc", digest)]
    assert fill(store, "a", b"abc").size == 3


@pytest.mark.parametrize(("data", "digest"), [(b"abc", sha256(b"abd")), (b"abcd", None)])
def test_a_taken_key_with_another_object(script: Script, store: S3Store, data: bytes, digest: bytes | None) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), stored(data, digest)]
    with pytest.raises(AlreadyExists):
        fill(store, "a", b"abc")


def test_a_key_that_was_freed_meanwhile_is_tried_again(script: Script, store: S3Store) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), Answer(404), Answer(200, headers=vouching(b"abc"))]
    assert fill(store, "a", b"abc").size == 3


def test_a_missing_bucket_is_asked_for_before_an_object_is_called_missing(script: Script, store: S3Store) -> None:
    script.answers += [Answer(404), Answer(404), Answer(404), Answer(200)]
    with pytest.raises(StoreUnavailable, match="no bucket pictures"):
        store.head("a")
    with pytest.raises(NotFound):
        store.head("a")


def test_a_body_that_breaks_off_is_not_a_short_object(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(200, body=b"abc", promised=10))
    with pytest.raises(StoreUnavailable):
        read(store, "a")


def test_a_service_that_ignores_ranges_is_not_believed(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(200, body=b"abc"))
    with pytest.raises(StoreUnavailable, match="ignores ranges"):
        read(store, "a", Span(1, 2))


@pytest.mark.parametrize(("code", "error"), [("AccessDenied", Forbidden), ("InternalError", StoreUnavailable)])
def test_what_was_not_deleted_is_told(script: Script, store: S3Store, code: str, error: type[Exception]) -> None:
    body = f"<DeleteResult><Error><Key>a</Key><Code>{code}</Code></Error></DeleteResult>".encode()
    script.answers.append(Answer(200, body=body))
    with pytest.raises(error):
        store.delete(["a"])


def test_a_listing_that_is_refused(script: Script, store: S3Store) -> None:
    script.answers.append(Answer(403, "AccessDenied"))
    with pytest.raises(Forbidden):
        keys(store)


def test_a_service_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = open_store(silent.getsockname()[1], attempt_timeout=0.2)
        with pytest.raises(StoreUnavailable):
            store.head("a")
        store.close()
