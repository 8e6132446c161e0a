"""A host's clock that was wrong once."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core import clock
from storage.staging.staging import Staging
from tests.storage.staging.uploads import BAD, new_id, open_claim, settings, stage

SECOND = timedelta(seconds=1)
YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    ("ahead", "delay", "due"),
    [
        (timedelta(0), timedelta(0), True),
        (timedelta(0), 30 * SECOND, False),
        (-YEAR, 30 * SECOND, True),
        (-60 * SECOND, 30 * SECOND, True),
        (20 * SECOND, 30 * SECOND, False),
        (3600 * SECOND, timedelta(0), True),
        (3600 * SECOND, 30 * SECOND, True),
        (YEAR, 30 * SECOND, True),
    ],
)
def test_a_retry_is_never_put_off_beyond_the_cap(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, ahead: timedelta, delay: timedelta, due: bool
) -> None:
    upload_id = stage(staging)
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + ahead)
    with open_claim(staging, upload_id) as claim:
        claim.start()
        claim.refund(delay=delay, reason=BAD)
    monkeypatch.undo()
    assert staging.due(9, clock.now()) == ([upload_id] if due else [])
    assert staging.due(9, clock.now() + 61 * SECOND) == [upload_id], "nothing waits longer than the cap"


@pytest.mark.parametrize("ahead", [-YEAR, YEAR])
def test_left_overs_of_another_time_go(tmp_path: Path, ahead: timedelta) -> None:
    staging = Staging.open(settings(tmp_path))
    left, fresh = (tmp_path / "staging" / "incoming" / str(new_id()) for _ in range(2))
    for path in (left, fresh):
        path.touch()
    os.utime(left, (time.time() + ahead.total_seconds(),) * 2)
    assert staging.sweep_incoming(timedelta(hours=1)) == 1
    assert (left.exists(), fresh.exists()) == (False, True)
