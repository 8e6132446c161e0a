"""Staging in one process: what is accepted, looked at, claimed, counted, put aside, thrown away and swept."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import UUID

import pytest

from core import failpoints
from core.errors import AlreadyExists, StagingFull, Unavailable
from core.model import Attempts, Durability, FailureReason
from storage.staging.claim import Claim
from storage.staging.staging import Staging
from tests.storage.uploads import BODY, arm, manifest, names, new_id, settings, stage

NOW = timedelta(0)
BAD = FailureReason("bad-image", "it is not one")


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging.open(settings(tmp_path))


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "failpoints"
    monkeypatch.setattr(failpoints, "_DIRECTORY", str(directory))
    return directory


def in_quarantine(staging: Staging, body: bytes = BODY) -> UUID:
    upload_id = stage(staging, body)
    with open_claim(staging, upload_id) as claim:
        claim.start()
        claim.quarantine(BAD)
    return upload_id


def open_claim(staging: Staging, upload_id: UUID) -> Claim:
    claim = staging.claim(upload_id)
    assert claim is not None
    return claim


# ── accepting


@pytest.mark.parametrize("expected", [0, None, len(BODY)])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_an_upload_becomes_an_entry_of_exactly_its_bytes(staging: Staging, size: int, expected: int | None) -> None:
    body, upload_id = os.urandom(size), new_id()
    with staging.begin(upload_id, expected=expected) as incoming:
        for start in range(0, size, 700_000):
            incoming.write(memoryview(body)[start : start + 700_000])
        assert incoming.size == size
        assert incoming.view().read() == body
        assert staging.look(upload_id) is None
        incoming.commit(manifest(upload_id, body))
    entry = staging.look(upload_id)
    assert entry is not None
    assert entry.manifest == manifest(upload_id, body, accepted_at=entry.manifest.accepted_at)
    assert (entry.attempts, entry.quarantined) == (Attempts(), False)
    with open_claim(staging, upload_id) as claim:
        assert claim.body().read() == body


@pytest.mark.parametrize("most", [7, 1 << 20])
@pytest.mark.parametrize("more", [b"", b"more than was said"])
def test_a_body_in_one_piece_is_written_whole_with_its_manifest(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, more: bytes, most: int
) -> None:
    """Also when the disk takes little at a time, and when another piece comes after all."""
    pwritev, calls = os.pwritev, []

    def reluctant(descriptor: int, pieces: list[memoryview], offset: int) -> int:
        calls.append(offset)
        return pwritev(descriptor, [pieces[0][:most]], offset) if most == 7 else pwritev(descriptor, pieces, offset)

    monkeypatch.setattr(os, "pwritev", reluctant)
    upload_id = new_id()
    with staging.begin(upload_id, expected=len(BODY)) as incoming:
        incoming.write(BODY)
        assert incoming.view().read() == BODY
        if more:
            incoming.write(more)
        assert incoming.view().read() == BODY + more
        incoming.commit(manifest(upload_id, BODY + more))
    if most > 7:
        assert len(calls) == (2 if more else 1)
    with open_claim(staging, upload_id) as claim:
        assert claim.body().read() == BODY + more


def test_reserved_space_is_given_back(staging: Staging, tmp_path: Path) -> None:
    upload_id = new_id()
    with staging.begin(upload_id, expected=50_000_000) as incoming:
        held = (tmp_path / "staging" / "incoming" / str(upload_id)).stat()
        assert held.st_blocks * 512 >= 50_000_000
        incoming.write(BODY)
        incoming.commit(manifest(upload_id))
    kept = (tmp_path / "staging" / "accepted" / str(upload_id)).stat()
    assert kept.st_blocks * 512 < 100_000


def test_an_upload_that_is_not_committed_leaves_nothing(staging: Staging, tmp_path: Path) -> None:
    with staging.begin(new_id(), expected=None) as incoming:
        incoming.write(BODY)
    with pytest.raises(RuntimeError), staging.begin(new_id(), expected=None) as incoming:
        raise RuntimeError
    assert names(tmp_path, "incoming") == names(tmp_path, "accepted") == []


def test_a_manifest_of_another_upload_is_a_bug(staging: Staging) -> None:
    with staging.begin(new_id(), expected=None) as incoming, pytest.raises(ValueError, match="manifest"):
        incoming.commit(manifest(new_id(), b""))


def test_one_id_is_one_upload(staging: Staging) -> None:
    upload_id = new_id()
    with staging.begin(upload_id, expected=None), pytest.raises(AlreadyExists):
        staging.begin(upload_id, expected=None)
    stage(staging, upload_id=upload_id)


COMMIT_STEPS = ["before-fsync", "after-fsync", "after-rename", "before-dirsync", "after-dirsync"]


@pytest.mark.parametrize("fault", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
@pytest.mark.parametrize("step", ["after-create", "write", *COMMIT_STEPS])
def test_a_disk_that_refuses_is_told_and_leaves_nothing(
    staging: Staging, tmp_path: Path, armed: Path, step: str, fault: str
) -> None:
    arm(armed, f"accept.{step}", f"errno {fault}")
    with pytest.raises(Unavailable) as refused:
        stage(staging)
    assert isinstance(refused.value, StagingFull) == (fault in {"ENOSPC", "EDQUOT"})
    assert fault in refused.value.detail
    assert names(tmp_path, "incoming") == names(tmp_path, "accepted") == []
    stage(staging)
    assert len(names(tmp_path, "accepted")) == 1


def test_nobody_claims_an_entry_before_its_commit_is_through(staging: Staging, armed: Path) -> None:
    arm(armed, "accept.before-dirsync", "sleep 0.5")
    upload_id = new_id()
    accepting = threading.Thread(target=stage, args=(staging, BODY, upload_id))
    accepting.start()
    while staging.look(upload_id) is None:
        pass
    assert staging.claim(upload_id) is None
    accepting.join()
    with open_claim(staging, upload_id):
        pass


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        ({}, Durability.HOST_DISK),
        ({"sync": "data"}, Durability.HOST_CACHE),
        ({"sync": "none"}, Durability.HOST_CACHE),
        ({"ephemeral": True}, Durability.MEMORY),
    ],
)
def test_what_is_synced_is_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], durability: Durability
) -> None:
    staging = Staging.open(settings(tmp_path, **options))
    synced: list[str] = []
    fdatasync, fsync = os.fdatasync, os.fsync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append("file"), fdatasync(descriptor)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append("directory"), fsync(descriptor)))
    stage(staging)
    assert staging.durability is durability
    assert synced == {"data": ["file"], "none": []}.get(str(options.get("sync")), ["file", "directory"])


# ── claiming and counting


def test_a_view_ends_where_the_body_does(staging: Staging) -> None:
    with open_claim(staging, stage(staging)) as claim:
        first, second = claim.body(), claim.body()
        assert first.seek(-10, os.SEEK_END) == len(BODY) - 10
        assert first.read(1000) == BODY[-10:]
        assert first.read() == b""
        assert second.read(5) == BODY[:5]
        first.seek(len(BODY) + 3)
        assert first.read(5) == b""
        assert os.pread(first.fileno(), 4, 0) == BODY[:4]
        second.close()
        first.seek(2)
        assert first.read(1) == BODY[2:3]
        late = claim.body()
    with pytest.raises(ValueError):
        late.read()


def test_a_claim_is_one_persons(staging: Staging) -> None:
    upload_id = stage(staging)
    with open_claim(staging, upload_id):
        assert staging.claim(upload_id) is None
        child = staging.claim(upload_id, held_by_parent=True)
        assert child is not None
        with child:
            child.start()
        assert staging.claim(upload_id) is None
    with open_claim(staging, upload_id) as claim:
        assert claim.attempts.unfinished == 1
    assert staging.claim(new_id()) is None


def test_an_entry_that_left_while_it_was_being_locked_is_not_claimed(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = stage(staging)
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_NB:
            monkeypatch.undo()
            with open_claim(staging, upload_id) as other:
                other.drop()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert staging.claim(upload_id) is None


def test_starts_are_counted_and_refunded(staging: Staging) -> None:
    upload_id = stage(staging)
    with open_claim(staging, upload_id) as claim:
        started = claim.start()
        assert (started.total, started.unfinished, started.running, started.due_at) == (1, 1, True, None)
        entry = staging.look(upload_id)
        assert entry is not None
        assert entry.attempts == started
        claim.refund(delay=timedelta(minutes=1), reason=FailureReason("database-unavailable", "away"))
    with open_claim(staging, upload_id) as claim:
        assert (claim.attempts.total, claim.attempts.unfinished, claim.attempts.running) == (1, 0, False)
        claim.start()
        claim.refund(delay=NOW, reason=BAD, counted=True)
        assert (claim.attempts.total, claim.attempts.unfinished, claim.attempts.failure) == (2, 1, BAD)


def test_a_refund_that_cannot_be_written_hides_nothing(
    staging: Staging, armed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_claim(staging, stage(staging)) as claim:
        claim.start()
        arm(armed, "claim.before-refund", "errno EIO")
        with caplog.at_level(logging.ERROR):
            claim.refund(delay=NOW, reason=None)
        assert "stays counted" in caplog.text
        arm(armed, "claim.before-start", "errno ENOSPC")
        with pytest.raises(StagingFull):
            claim.start()


def test_a_parent_settles_what_its_child_began(staging: Staging) -> None:
    upload_id = stage(staging)
    with open_claim(staging, upload_id) as parent:
        child = staging.claim(upload_id, held_by_parent=True)
        assert child is not None
        with child:
            child.start()
        parent.quarantine(BAD)
    [entry] = staging.quarantined()
    assert (entry.attempts.unfinished, entry.attempts.running, entry.attempts.failure) == (1, False, BAD)


def test_a_dropped_entry_is_gone_but_readable_and_remembered(staging: Staging, tmp_path: Path) -> None:
    upload_id = stage(staging)
    with open_claim(staging, upload_id) as claim:
        claim.start()
        claim.drop()
        claim.drop()
        assert staging.look(upload_id) is None
        assert staging.recently_done(upload_id) == claim.manifest
        assert staging.empty_trash(timedelta(minutes=1)) == 0
        assert staging.empty_trash(NOW) == 1
        assert claim.body().read() == BODY
    assert staging.recently_done(upload_id) is None
    assert staging.claim(upload_id) is None
    assert names(tmp_path, "trash") == []


@pytest.mark.parametrize("step", ["claim.before-drop", "staging.move-to-trash"])
def test_a_drop_the_disk_refuses_leaves_the_entry(staging: Staging, armed: Path, step: str) -> None:
    upload_id = stage(staging)
    arm(armed, step, "errno EIO")
    with open_claim(staging, upload_id) as claim, pytest.raises(Unavailable):
        claim.drop()
    assert staging.look(upload_id) is not None


# ── quarantine


def test_quarantine_shows_the_reason_and_goes_back_or_away(staging: Staging) -> None:
    upload_id = in_quarantine(staging)
    entry = staging.look(upload_id)
    assert entry is not None
    assert (entry.quarantined, entry.attempts.failure) == (True, BAD)
    assert list(staging.quarantined()) == [entry]
    assert staging.claim(upload_id) is None
    assert list(staging.entries()) == []

    assert staging.requeue(upload_id)
    assert not staging.requeue(upload_id)
    back = staging.look(upload_id)
    assert back is not None
    assert (back.quarantined, back.attempts) == (False, Attempts(failure=BAD))
    with open_claim(staging, upload_id) as claim:
        assert claim.body().read() == BODY
        claim.quarantine(BAD)

    assert staging.discard(upload_id)
    assert not staging.discard(upload_id)
    assert staging.look(upload_id) is None
    assert staging.recently_done(upload_id) is None, "what was thrown away was never done"
    assert staging.empty_trash(NOW) == 1


def test_a_broken_entry_stops_nobody_and_shows_as_corrupt(staging: Staging, tmp_path: Path) -> None:
    accepted = tmp_path / "staging" / "accepted"
    cut, good, late = stage(staging), stage(staging), stage(staging)
    os.truncate(accepted / str(cut), 100)
    empty, foreign, link = new_id(), "README", new_id()
    for name in (str(empty), foreign):
        (accepted / name).touch()
    (accepted / str(link)).symlink_to(accepted / str(good))
    (accepted / str(new_id())).mkdir()

    now = datetime.now(UTC)
    assert staging.due(10, now) == [cut, good, late, empty]
    assert staging.claim(cut) is None
    seen = staging.look(empty)
    assert seen is not None
    assert (seen.quarantined, seen.manifest.id) == (True, empty)
    assert staging.set_broken_aside() == 1
    assert staging.due(10, now) == [good, late]
    shown = list(staging.quarantined())
    assert [entry.manifest.id for entry in shown] == [cut, empty]
    assert [entry.manifest.size for entry in shown] == [100, 0]
    assert {entry.attempts.failure.kind for entry in shown if entry.attempts.failure} == {"corrupt"}
    assert not staging.requeue(cut)
    assert staging.discard(cut)
    assert (accepted / foreign).exists()


def test_a_broken_entry_that_somebody_works_on_is_left_to_them(staging: Staging, tmp_path: Path) -> None:
    upload_id = stage(staging)
    with open_claim(staging, upload_id):
        os.truncate(tmp_path / "staging" / "accepted" / str(upload_id), 100)
        assert staging.set_broken_aside() == 0
    assert staging.set_broken_aside() == 1


def test_an_entry_under_another_entrys_name_is_broken(staging: Staging, tmp_path: Path) -> None:
    accepted = tmp_path / "staging" / "accepted"
    other = new_id()
    (accepted / str(stage(staging))).rename(accepted / str(other))
    assert staging.claim(other) is None
    assert names(tmp_path, "quarantine") == [str(other)]


# ── sweeping


def test_due_is_oldest_first_and_leaves_out_what_waits(staging: Staging) -> None:
    first, second, third, fourth = (stage(staging) for _ in range(4))
    with open_claim(staging, second) as claim:
        claim.start()
        claim.refund(delay=timedelta(seconds=30), reason=BAD)
    now = datetime.now(UTC)
    assert staging.due(2, now) == [first, third]
    assert staging.due(9, now, after=first) == [third, fourth]
    assert staging.due(2, now + timedelta(minutes=1)) == [first, second]
    assert staging.due(0, now) == []
    assert staging.depth()[0] == 4
    assert staging.depth()[1] > 4 * len(BODY)


def test_a_backlog_costs_a_look_at_its_names_only(staging: Staging, tmp_path: Path) -> None:
    whole = stage(staging)
    accepted = tmp_path / "staging" / "accepted"
    rest = [new_id() for _ in range(20_000)]
    for upload_id in rest:
        os.link(accepted / str(whole), accepted / str(upload_id))
    began = monotonic()
    assert staging.due(8, datetime.now(UTC)) == [whole, *rest[:7]]
    assert monotonic() - began < 1


def test_the_sweep_takes_only_uploads_that_nobody_holds(staging: Staging, tmp_path: Path) -> None:
    left, young, held = new_id(), new_id(), new_id()
    incoming = tmp_path / "staging" / "incoming"
    (incoming / str(left)).write_bytes(b"half")
    (incoming / str(young)).write_bytes(b"half")
    with staging.begin(held, expected=None) as upload:
        upload.write(BODY)
        for name in (left, held):
            os.utime(incoming / str(name), (0, 0))
        assert staging.sweep_incoming(timedelta(hours=1)) == 1
        assert names(tmp_path, "incoming") == sorted([str(young), str(held)])
        assert staging.sweep_incoming(NOW) == 1
        upload.commit(manifest(held))
    assert names(tmp_path, "accepted") == [str(held)]
