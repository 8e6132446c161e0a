"""Objects in an archive: told apart from what is refused or away, asked for once, readable once restored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from core.errors import AlreadyExists, Archived, Forbidden, NotFound, StoreUnavailable
from storage.s3.options import S3Options
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, fill, keys, read, sha256
from tests.s3_server import slow_restorations
from tests.storage.s3_options import options
from tests.storage.s3_script import DATE, Answer, Asked, Script, script, stored
from tests.storage.test_s3 import bucket

__all__ = ["bucket", "script"]

HOUR = 3600
REFUSED = Answer(403, "InvalidObjectState")
ARCHIVED = {"Last-Modified": DATE, "x-amz-storage-class": "GLACIER"}
SILENT = Answer(200, headers={"ETag": '"x"'})


@pytest.fixture
def cold(s3_endpoint: str, bucket: str) -> Iterator[S3Store]:
    made = S3Store("cold", options(s3_endpoint, bucket, key_prefix="cold", storage_class="GLACIER", restore_wait=77))
    yield made
    made.delete(keys(made))
    made.close()


@pytest.fixture
def slowly(s3_endpoint: str) -> Iterator[float]:
    seconds = 0.4
    with slow_restorations(s3_endpoint, seconds):
        yield seconds


def test_an_archived_object_is_there_and_not_readable_until_it_is_restored(cold: S3Store, slowly: float) -> None:
    fill(cold, "a", b"bytes")
    assert cold.head("a").sha256 == sha256(b"bytes")
    time.sleep(slowly + 0.1)
    with pytest.raises(Archived) as refused:
        read(cold, "a")
    assert refused.value.retry_after == 77
    assert cold.restore("a") == 77
    with pytest.raises(Archived):
        read(cold, "a")
    assert cold.restore("a") == 77, "asked for and not there yet"
    until = time.monotonic() + 20
    while cold.restore("a"):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert read(cold, "a") == b"bytes"


def test_what_is_empty_is_restored_too(cold: S3Store) -> None:
    fill(cold, "empty", b"")
    assert cold.restore("empty") == 77
    assert cold.restore("empty") == 0


def test_what_is_not_there_cannot_be_restored(cold: S3Store) -> None:
    with pytest.raises(NotFound):
        cold.restore("never")


def test_a_copy_from_an_archive_says_so(cold: S3Store, s3_endpoint: str, bucket: str) -> None:
    fill(cold, "a", b"bytes")
    warm = S3Store("warm", options(s3_endpoint, bucket, key_prefix="warm"))
    with pytest.raises(Archived):
        warm.copy_from(cold, "a", "a")
    assert keys(warm) == []
    warm.close()


def test_nothing_is_copied_into_an_archive_unread(cold: S3Store) -> None:
    """What the service copied there could not be read back."""
    assert cold.copy_from(cold, "a", "b") is None


def test_a_body_in_parts_goes_into_an_archive(cold: S3Store) -> None:
    fill(cold, "large", bytes(11 * MIB))
    assert cold.head("large").size == 11 * MIB


def test_an_archive_is_an_answer_and_opens_no_breaker(script: Script) -> None:
    script.answers += [REFUSED] * 3
    store = script.open_store(breaker_failures=1)
    for _ in range(3):
        with pytest.raises(Archived):
            read(store, "a")
    assert store.breaker == "closed"
    store.close()


def asked(script: Script, look: dict[str, str], said: Answer, **more: Any) -> Asked:
    """What an archive is asked for an object that looks like this."""
    script.answers += [REFUSED, Answer(200, headers=look), said]
    store = script.open_store(**more)
    assert store.restore("a") == store._options.restore_wait
    store.close()
    assert [one.method for one in script.asked] == ["GET", "HEAD", "POST"]
    return script.asked[-1]


@pytest.mark.parametrize("tier", ["Expedited", "Standard", "Bulk"])
def test_the_archive_is_asked_as_the_settings_say(script: Script, tier: str) -> None:
    body = asked(script, ARCHIVED, Answer(202), restore_tier=tier, restore_days=3).body
    assert f"<Tier>{tier}</Tier>".encode() in body
    assert b"<Days>3</Days>" in body


def test_intelligent_tiering_is_told_no_days(script: Script) -> None:
    look = {
        "Last-Modified": DATE,
        "x-amz-storage-class": "INTELLIGENT_TIERING",
        "x-amz-archive-status": "ARCHIVE_ACCESS",
    }
    body = asked(script, look, Answer(202)).body
    assert b"<Tier>Standard</Tier>" in body
    assert b"Days" not in body


def test_that_somebody_asked_before_is_no_error(script: Script) -> None:
    asked(script, ARCHIVED, Answer(409, "RestoreAlreadyInProgress"))


def test_while_it_is_under_way_it_is_not_asked_for_again(script: Script) -> None:
    script.answers += [REFUSED, Answer(200, headers=ARCHIVED | {"x-amz-restore": 'ongoing-request="true"'})]
    store = script.open_store()
    assert store.restore("a") == 5 * HOUR
    store.close()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Answer(503, "GlacierExpeditedRetrievalNotAvailable"), StoreUnavailable),
        (Answer(403, "AccessDenied"), Forbidden),
    ],
)
def test_a_refusal_is_told_and_opens_no_breaker(script: Script, said: Answer, kind: type[Exception]) -> None:
    script.answers += [REFUSED, Answer(200, headers=ARCHIVED), said]
    store = script.open_store(breaker_failures=1)
    with pytest.raises(kind):
        store.restore("a")
    assert store.breaker == "closed"
    store.close()


def test_what_cannot_be_read_back_is_not_believed(script: Script) -> None:
    """An archive whose service tells no checksum."""
    script.answers += [SILENT, REFUSED]
    store = script.open_store()
    with pytest.raises(StoreUnavailable, match="no checksum"):
        fill(store, "a", b"abc")
    script.answers += [Answer(412, "PreconditionFailed"), stored(b"abc", sha256(b"abc"), vouched=False), REFUSED]
    with pytest.raises(AlreadyExists):
        fill(store, "a", b"abc")
    store.close()


def test_an_archived_object_that_the_service_vouches_for_counts_as_stored(script: Script) -> None:
    script.answers += [Answer(412, "PreconditionFailed"), stored(b"abc", sha256(b"abc"))]
    store = script.open_store(storage_class="GLACIER")
    assert fill(store, "a", b"abc").size == 3
    store.close()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 5 * HOUR),
        ({"restore_tier": "Expedited"}, 300),
        ({"restore_tier": "Bulk"}, 12 * HOUR),
        ({"storage_class": "DEEP_ARCHIVE"}, 12 * HOUR),
        ({"storage_class": "DEEP_ARCHIVE", "restore_tier": "Bulk"}, 48 * HOUR),
        ({"storage_class": "DEEP_ARCHIVE", "restore_wait": 60}, 60),
    ],
)
def test_people_are_told_what_is_usual(given: dict[str, Any], seconds: int) -> None:
    assert S3Options.model_validate({"bucket": "pictures", "region": "eu-central-1", **given}).restore_wait == seconds


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"restore_tier": "Slow"}, "restore_tier"),
        ({"restore_days": 0}, "restore_days"),
        ({"restore_wait": 0}, "restore_wait"),
        ({"storage_class": "DEEP_ARCHIVE", "restore_tier": "Expedited"}, "Expedited is not offered"),
        ({"storage_class": "GLACIER", "verify": "readback"}, "readback cannot be done"),
    ],
)
def test_what_an_archive_cannot_do_is_refused_when_settings_load(given: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        S3Options.model_validate({"bucket": "pictures", "region": "eu-central-1", **given})
