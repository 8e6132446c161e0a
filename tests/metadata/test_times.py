"""Hosts whose clocks disagree: what is newest follows none of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID, uuid4

import pytest

from core import clock
from core.model import Asset, Manifest
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, Ingester, manifest, path, staged

HERE = UUID(int=1)
YEAR = timedelta(days=365)
MINUTE = timedelta(minutes=1)
MOMENT = timedelta(milliseconds=1)
NOTHING = timedelta(0)
Shift = Callable[[timedelta], datetime]


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> Shift:
    """Puts the clock of this host ahead, as if this process were on another; returns what it says then."""

    def ahead(by: timedelta) -> datetime:
        monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + by)
        return clock.now()

    return ahead


def newest(metadata: Metadata, at: str = "/a.png") -> Asset:
    found = metadata.assets.newest(path(at))
    assert found is not None
    return found


@pytest.mark.parametrize("announced", [False, True])
def test_the_newest_of_a_path_follows_no_hosts_clock(
    metadata: Metadata, ingester: Ingester, shift: Shift, announced: bool
) -> None:
    """Take in each upload a minute after the one before, by alternate hosts, and record them in another order."""
    for here, away in permutations([NOTHING, 2 * MINUTE, HOUR, -HOUR, YEAR, -YEAR], 2):
        ahead = {uuid4(): here, uuid4(): away}
        at = f"/{here.total_seconds():.0f}/{away.total_seconds():.0f}.png"
        taken = []
        for number, (host_id, by) in enumerate([*ahead.items()] * 2):
            accepted_at = shift(by) - (4 - number) * MINUTE
            taken.append(manifest(at, host_id=host_id, accepted_at=accepted_at))
            if announced:
                metadata.uploads.announce(host_id, [staged(taken[-1])])
        for upload in (taken[3], taken[0], taken[2], taken[1]):
            shift(ahead[upload.host_id])
            ingester.ingest(upload)
        recorded = [one for one in (metadata.assets.by_id(upload.asset_id) for upload in taken) if one is not None]
        in_time = sorted(recorded, key=lambda one: one.accepted_at)
        assert [one.id for one in in_time] == [one.asset_id for one in taken], at
        assert newest(metadata, at).id == taken[3].asset_id
        assert [one.accepted_by_host_at for one in in_time] == [one.accepted_at for one in taken]
        for number, one in enumerate(in_time):
            assert abs(datetime.now(UTC) - one.accepted_at - (4 - number) * MINUTE) < MINUTE / 2


def test_two_of_one_host_keep_their_order_however_long_messages_take(
    metadata: Metadata, ingester: Ingester, shift: Shift
) -> None:
    now = shift(NOTHING)
    metadata.uploads.announce(HERE, [])
    first, second = (manifest(accepted_at=now - MINUTE + step * MOMENT) for step in range(2))
    shift(-300 * MOMENT)  # it was read some time before the transaction began
    ingester.ingest(first)
    shift(-5 * MOMENT)
    ingester.ingest(second)
    assert newest(metadata).id == second.asset_id


@pytest.mark.parametrize("then", [HOUR, YEAR])
def test_a_clock_that_is_set_right_before_the_entry_is_recorded(
    metadata: Metadata, ingester: Ingester, shift: Shift, then: timedelta
) -> None:
    """Take in an entry while the clock is ahead: its time is recorded as not after now, and the next entry is the
    newest."""
    wrong = manifest(accepted_at=shift(then))
    metadata.uploads.announce(HERE, [])
    shift(NOTHING)
    ingester.ingest(wrong)
    assert newest(metadata).accepted_at <= metadata.now()
    metadata.uploads.announce(HERE, [])
    later = manifest(accepted_at=clock.now())
    ingester.ingest(later)
    assert newest(metadata).id == later.asset_id


def test_what_was_announced_stays(metadata: Metadata, ingester: Ingester, shift: Shift, query: Query) -> None:
    def told(of: Manifest) -> datetime:
        found = metadata.uploads.find(of.id, host_lost=HOUR)
        assert found is not None
        return found.accepted_at

    made = manifest(accepted_at=shift(NOTHING) - MINUTE)
    metadata.uploads.announce(HERE, [staged(made)])
    at = told(made)
    assert abs(at - made.accepted_at) < MINUTE / 2
    shift(HOUR)
    metadata.uploads.announce(HERE, [staged(made)])
    ingester.ingest(made)
    assert told(made) == newest(metadata).accepted_at == at


def test_a_heartbeat_follows_a_clock_that_is_set_and_no_jitter(metadata: Metadata, shift: Shift, query: Query) -> None:
    def offset() -> timedelta:
        [(found,)] = query("SELECT clock_offset FROM host")
        assert isinstance(found, timedelta)
        return found

    seen = []
    for by in (NOTHING, -500 * MOMENT, NOTHING, HOUR, HOUR - 500 * MOMENT, NOTHING):
        shift(by)
        metadata.uploads.announce(HERE, [])
        seen.append(offset())
    assert seen[1] == seen[0]
    assert abs(seen[3] + HOUR) < 200 * MOMENT
    assert seen[4] == seen[3]
    assert abs(seen[5]) < 200 * MOMENT
