"""Looking at an entry, claiming it, counting its starts, dropping it."""

from __future__ import annotations

import fcntl
import logging
import os
from datetime import timedelta
from pathlib import Path

import pytest

from core.errors import StagingFull, Unavailable
from core.model import FailureReason
from storage.staging.staging import Staging
from tests.storage.staging.uploads import (
    BAD,
    BODY,
    arm,
    names,
    new_id,
    open_claim,
    stage,
)

NOW = timedelta(0)


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
