"""The file format of a staged entry: what goes in comes out; what is torn, cut or foreign is never taken for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import Corrupt
from core.model import Attempts, Details, FailureReason, ImageFacts, Manifest
from storage.staging import manifest as manifest_json
from storage.staging.entry import SLOT_BYTES, TRAILER_BYTES, encode_tail, read_manifest, read_trailer, write_attempts
from tests.storage.staging.uploads import BODY, manifest, new_id

unhurried = hypothesis_settings(deadline=None)  # a busy machine is no bug
moments = st.datetimes(timezones=st.just(UTC))
any_text = st.text(st.characters(), max_size=50)  # lone surrogates too
counts = st.integers(0, 2**40)
manifests = st.builds(
    Manifest,
    id=st.uuids(),
    asset_id=st.uuids(),
    host_id=st.uuids(),
    path=any_text,
    size=counts,
    sha256=st.binary(min_size=32, max_size=32),
    image=st.builds(ImageFacts, any_text, counts, counts, st.none() | counts, st.integers(1, 8), st.booleans()),
    details=st.builds(
        Details,
        alt=st.none() | any_text,
        labels=st.dictionaries(any_text, any_text, max_size=5),
        tags=st.lists(any_text, max_size=5).map(tuple),
    ),
    accepted_at=moments,
    fingerprint=st.binary(min_size=32, max_size=32),
    keyed=st.booleans(),
)
records = st.builds(
    Attempts,
    total=counts,
    unfinished=counts,
    running=st.booleans(),
    started_at=st.none() | moments,
    due_at=st.none() | moments,
    failure=st.none() | st.builds(FailureReason, st.sampled_from(["crashed", "bad-image"]), any_text),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    descriptor = os.open(tmp_path_factory.mktemp("entry") / "entry", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def rewrite(descriptor: int, data: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


def fresh(descriptor: int) -> bytes:
    data = BODY + encode_tail(manifest(new_id()))
    rewrite(descriptor, data)
    return data


@unhurried
@given(manifests)
def test_a_manifest_comes_back_as_it_was(written: Manifest) -> None:
    assert manifest_json.decode(manifest_json.encode(written)) == written


@unhurried
@given(st.binary(max_size=300))
def test_an_entry_comes_back_as_it_was(scratch: int, body: bytes) -> None:
    written = manifest(UUID(int=7), body)
    rewrite(scratch, body + encode_tail(written))
    trailer = read_trailer(scratch)
    assert read_manifest(scratch, trailer) == written
    assert (trailer.size, trailer.attempts) == (len(body), Attempts())


@unhurried
@given(st.lists(records, min_size=1, max_size=6))
def test_the_last_attempt_record_counts_and_takes_no_space(scratch: int, written: list[Attempts]) -> None:
    before = fresh(scratch)
    for record in written:
        write_attempts(scratch, record)
        assert read_trailer(scratch).attempts == record
    assert os.fstat(scratch).st_size == len(before)
    assert os.pread(scratch, len(before) - TRAILER_BYTES, 0) == before[:-TRAILER_BYTES]


@unhurried
@given(st.integers(1, 12), st.integers(0, SLOT_BYTES))
def test_a_torn_record_leaves_the_older_one(scratch: int, writes: int, torn_at: int) -> None:
    fresh(scratch)
    for total in range(1, writes + 1):
        write_attempts(scratch, Attempts(total=total))
    whole = read_trailer(scratch)
    start = whole.slots_offset + SLOT_BYTES * (whole.sequence % 2)
    older = os.pread(scratch, SLOT_BYTES, start)
    write_attempts(scratch, Attempts(total=writes + 1, failure=FailureReason("crashed", "x" * 800)))
    newer = os.pread(scratch, SLOT_BYTES, start)
    torn = newer[:torn_at] + older[torn_at:]
    os.pwrite(scratch, torn, start)
    assert read_trailer(scratch).attempts.total == (writes + 1 if torn == newer else writes)
    write_attempts(scratch, Attempts(total=99))
    assert read_trailer(scratch).attempts.total == 99


def test_two_lost_records_count_afresh(scratch: int) -> None:
    fresh(scratch)
    write_attempts(scratch, Attempts(total=5))
    os.pwrite(scratch, bytes(2 * SLOT_BYTES), read_trailer(scratch).slots_offset)
    assert read_trailer(scratch).attempts == Attempts()
    write_attempts(scratch, Attempts(total=1))
    assert read_trailer(scratch).attempts.total == 1


@unhurried
@given(st.text(st.characters(), min_size=900, max_size=5000), st.text(max_size=200))
def test_a_long_reason_is_cut_to_fit(scratch: int, detail: str, kind: str) -> None:
    fresh(scratch)
    write_attempts(scratch, Attempts(total=2**40, started_at=datetime.now(UTC), failure=FailureReason(kind, detail)))
    found = read_trailer(scratch).attempts
    assert found.total == 2**40
    assert found.failure is not None
    assert len(found.failure.detail) >= 40
    assert detail.startswith(found.failure.detail)
    assert kind.startswith(found.failure.kind)


@unhurried
@given(st.data())
def test_a_cut_or_longer_file_is_no_entry(scratch: int, data: st.DataObject) -> None:
    whole = fresh(scratch)
    length = data.draw(st.integers(0, len(whole) + 5000).filter(lambda length: length != len(whole)))
    rewrite(scratch, whole[:length].ljust(length, b"\0"))
    with pytest.raises(Corrupt):
        read_trailer(scratch)


@unhurried
@given(st.data())
def test_a_flipped_bit_after_the_body_is_seen_or_does_not_matter(scratch: int, data: st.DataObject) -> None:
    written = manifest(UUID(int=9))
    whole = bytearray(BODY + encode_tail(written))
    where = data.draw(st.integers(len(BODY), len(whole) - 1))
    whole[where] ^= 1 << data.draw(st.integers(0, 7))
    rewrite(scratch, bytes(whole))
    try:
        trailer = read_trailer(scratch)
        found = read_manifest(scratch, trailer)
    except Corrupt:
        return
    assert found == written
    assert trailer.attempts == Attempts()


@unhurried
@given(st.binary(max_size=TRAILER_BYTES * 2))
def test_foreign_bytes_are_no_entry(scratch: int, data: bytes) -> None:
    rewrite(scratch, data)
    with pytest.raises(Corrupt):
        read_trailer(scratch)


def test_a_manifest_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.write_bytes(BODY + b"more" + encode_tail(manifest(new_id(), BODY)))
    with path.open("rb") as file, pytest.raises(Corrupt):
        read_trailer(file.fileno())


def test_attempts_far_apart_stay_apart(scratch: int) -> None:
    fresh(scratch)
    due = datetime.now(UTC) + timedelta(days=1)
    write_attempts(scratch, Attempts(due_at=due))
    write_attempts(scratch, replace(read_trailer(scratch).attempts, total=3))
    assert read_trailer(scratch).attempts == Attempts(total=3, due_at=due)
