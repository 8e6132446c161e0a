"""Jobs as rows: leased by one at a time, followed when their holder dies, and forgotten in the end."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from core.errors import Superseded
from core.model import Job, JobState
from core.sections import Retention
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import LEASE, Ingester, facts, manifest

MOMENT = timedelta(milliseconds=20)


@pytest.fixture
def job(metadata: Metadata) -> Job:
    return metadata.jobs.create("migrate", {"source": "a", "target": "b"})


def take(metadata: Metadata, lease: timedelta = LEASE) -> Job:
    held = metadata.jobs.take(lease)
    assert held is not None
    return held


def test_one_holder_at_a_time_and_the_one_that_waits_longest_first(metadata: Metadata, job: Job) -> None:
    other = metadata.jobs.create("migrate", {"source": "b", "target": "a"})
    assert [take(metadata).id, take(metadata).id] == [job.id, other.id]
    assert metadata.jobs.take(LEASE) is None
    assert metadata.jobs.take(LEASE, job.id) is None


def test_a_holder_that_was_followed_changes_nothing(metadata: Metadata, job: Job) -> None:
    stale = take(metadata, MOMENT)
    time.sleep(0.05)
    held = take(metadata)
    assert held.fence == stale.fence + 1
    assert not metadata.jobs.renew(stale, LEASE)
    with pytest.raises(Superseded):
        metadata.jobs.advance(stale, {"after": "x"}, {"done": 1}, LEASE)
    with pytest.raises(Superseded):
        metadata.jobs.settle(stale, JobState.DONE)
    metadata.jobs.give_back(stale, "late", timedelta(0))
    assert metadata.jobs.find(job.id) == held
    assert metadata.jobs.renew(held, LEASE)


def test_it_goes_on_where_it_was(metadata: Metadata, job: Job) -> None:
    held = metadata.jobs.advance(take(metadata), {"after": "ff"}, {"done": 7}, LEASE)
    metadata.jobs.give_back(held, "store-unavailable: away", timedelta(0))
    again = take(metadata)
    assert (again.id, again.cursor, again.progress) == (job.id, {"after": "ff"}, {"done": 7})


def test_given_back_it_waits(metadata: Metadata, job: Job) -> None:
    metadata.jobs.give_back(take(metadata), "store-unavailable: away", timedelta(hours=1))
    assert metadata.jobs.take(LEASE, job.id) is None
    found = metadata.jobs.find(job.id)
    assert found is not None
    assert (found.state, found.error) == (JobState.QUEUED, "store-unavailable: away")


def test_put_back_it_waits_behind_the_others(metadata: Metadata, job: Job) -> None:
    other = metadata.jobs.create("migrate", {"source": "b", "target": "a"})
    first = take(metadata)
    assert metadata.jobs.put_back(first, timedelta(0)).state is JobState.QUEUED
    assert [take(metadata).id, take(metadata).id] == [other.id, job.id]
    with pytest.raises(Superseded):
        metadata.jobs.put_back(first, timedelta(0))


def test_put_back_for_later_it_is_nobodys_and_not_due(metadata: Metadata, job: Job) -> None:
    metadata.jobs.put_back(take(metadata), timedelta(hours=1))
    assert metadata.jobs.take(LEASE, job.id) is None
    paused = metadata.jobs.wish(job.id, "pause")
    assert paused is not None
    assert (paused.state, paused.wish) == (JobState.PAUSED, None), "at once"
    metadata.jobs.wish(job.id, "resume")
    assert take(metadata).id == job.id, "who resumes it wants it now"


@pytest.mark.parametrize("leave", ["put_back", "give_back"])
@pytest.mark.parametrize(("wish", "state"), [("pause", JobState.PAUSED), ("cancel", JobState.CANCELLED)])
def test_a_wish_that_came_in_the_last_moment_is_not_lost(
    metadata: Metadata, job: Job, wish: str, state: JobState, leave: str
) -> None:
    held = take(metadata)
    metadata.jobs.wish(job.id, wish)  # type: ignore[arg-type]  # a parameter of the test
    if leave == "put_back":
        metadata.jobs.put_back(held, timedelta(hours=1))
    else:
        metadata.jobs.give_back(held, "store-unavailable: away", timedelta(hours=1))
    found = metadata.jobs.find(job.id)
    assert found is not None
    assert (found.state, found.wish, found.finished_at is not None) == (state, None, state.ended)


@pytest.mark.parametrize(("wish", "state"), [("pause", JobState.PAUSED), ("cancel", JobState.CANCELLED)])
def test_a_wish_is_done_at_once_where_nobody_works_and_shown_where_somebody_does(
    metadata: Metadata, job: Job, wish: str, state: JobState
) -> None:
    held = take(metadata)
    wished = metadata.jobs.wish(job.id, wish)  # type: ignore[arg-type]  # a parameter of the test
    assert wished is not None
    assert (wished.state, wished.wish) == (JobState.RUNNING, wish)
    metadata.jobs.give_back(held, "", timedelta(0))
    done = metadata.jobs.wish(job.id, wish)  # type: ignore[arg-type]  # a parameter of the test
    assert done is not None
    assert (done.state, done.wish) == (state, None)
    assert metadata.jobs.take(LEASE) is None
    resumed = metadata.jobs.wish(job.id, "resume")
    assert resumed is not None
    assert resumed.state is (JobState.QUEUED if state is JobState.PAUSED else JobState.CANCELLED)


def test_the_unfinished_ones_of_a_kind(metadata: Metadata, job: Job) -> None:
    metadata.jobs.create("restore", {"sha256": "ab"})
    other = metadata.jobs.create("migrate", {"source": "b", "target": "c"})
    metadata.jobs.settle(take(metadata), JobState.DONE)
    metadata.jobs.wish(other.id, "pause")
    assert [one.id for one in metadata.jobs.unfinished("migrate")] == [other.id]


def test_what_ended_makes_room_for_the_same_again(metadata: Metadata, job: Job) -> None:
    metadata.jobs.settle(take(metadata), JobState.DONE)
    again = metadata.jobs.create("migrate", {"source": "a", "target": "b"})
    assert again.id != job.id
    assert [one.id for one in metadata.jobs.newest(10)] == [again.id, job.id]


def test_history_is_kept_for_its_days(metadata: Metadata, ingester: Ingester, query: Query, job: Job) -> None:
    made = manifest()
    ingester.ingest(made)
    [replica] = metadata.blobs.replicas(facts(made).sha256)
    assert metadata.repairs.mark(replica, "missing", "gone")
    metadata.jobs.settle(take(metadata), JobState.DONE)
    metadata.jobs.create("migrate", {"source": "a", "target": "c"})
    query("UPDATE job SET created_at = now() - interval '8 days', finished_at = finished_at - interval '8 days'")
    query("UPDATE verify_event SET at = now() - interval '8 days'")
    assert metadata.retention.prune(Retention(history_days=9)) == 0
    assert metadata.retention.prune(Retention(history_days=7)) == 2, "the job that ended, and what was found"
