"""The sweep: feeding a window, working without a broker, announcing, and settling wishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg2
import pytest

from core.errors import BrokerUnavailable, DatabaseUnavailable
from core.loops import Background
from core.model import IngestState
from pipeline.uploads.sweep import ANNOUNCE_SECONDS, BATCH, Sweep
from tests.pictures import encoded, photo
from tests.pipeline.line import WORK, Line, under_every_lock

PICTURE = encoded(photo(), "JPEG")
LOST = timedelta(seconds=5)
"""Shorter than the ingest that the heart beats beside, longer than a beat on a busy machine."""


class Recorder:
    """A queue that remembers; `away` makes it fail as a broker does."""

    def __init__(self, window: int = 8) -> None:
        self.waiting: list[UUID] = []
        self.away = False
        self._window = window

    def room(self) -> int:
        if self.away:
            raise BrokerUnavailable("away")
        return max(0, self._window - len(self.waiting))

    def publish(self, upload_id: UUID) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.waiting.append(upload_id)


@pytest.fixture
def impatient(tmp_path: Path, database_url: str) -> Iterator[Line]:
    work = WORK.model_copy(update={"broker_patience_seconds": 0.001, "sweep_seconds": 5})
    made = Line(tmp_path, database_url, work=work)
    yield made
    made.close()


def test_a_backlog_is_fed_oldest_first_up_to_the_window(line: Line) -> None:
    ids = [line.accept(f"/{number}.jpg", PICTURE).id for number in range(12)]
    window = 8
    queue = Recorder(window)
    sweep = Sweep(line.services, queue)
    sweep.run()
    assert queue.waiting == ids[:window]
    sweep.run()
    assert queue.waiting == ids[:window]
    del queue.waiting[:3]
    sweep.run()
    assert len(queue.waiting) == window


def test_with_the_broker_away_the_sweep_ingests_by_itself(impatient: Line) -> None:
    manifests = [impatient.accept(f"/{number}.jpg", PICTURE) for number in range(3)]
    queue = Recorder()
    queue.away = True
    sweep = Sweep(impatient.services, queue)
    time.sleep(0.01)
    sweep.run()
    assert impatient.due() == []
    for manifest in manifests:
        assert impatient.services.metadata.assets.by_id(manifest.asset_id) is not None


def test_the_sweep_goes_round_what_is_at_work_elsewhere(impatient: Line) -> None:
    manifests = [impatient.accept(f"/bare/{number}.jpg", PICTURE) for number in range(2 * BATCH)]
    held = [impatient.services.staging.claim(one.id) for one in (*manifests[: BATCH + 2], manifests[-1])]
    sweep = Sweep(impatient.services, _away())
    time.sleep(0.01)
    sweep.run()
    assert len(impatient.due()) == len(held)
    for claim in held:
        assert claim is not None
        claim.__exit__(None, None, None)
    sweep.run()
    assert impatient.due() == []


@pytest.mark.parametrize("goes", [True, False], ids=["answered", "away"])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.6])
def test_the_heart_beats_again_before_the_host_is_lost_however_long_a_beat_took(
    impatient: Line, monkeypatch: pytest.MonkeyPatch, seconds: float, goes: bool
) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(seconds)
        if not goes:
            raise DatabaseUnavailable("no answer")

    monkeypatch.setattr(impatient.services.metadata.uploads, "announce", slow)
    assert ANNOUNCE_SECONDS <= Sweep(impatient.services, _away()).announce() < impatient.settings.work.sweep_seconds


def test_the_heart_beats_again_before_the_host_is_lost_however_long_its_backlog_is(
    impatient: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> Iterator[UUID]:
        time.sleep(0.6)
        return iter(())

    monkeypatch.setattr(impatient.services.staging, "entries", slow)
    assert Sweep(impatient.services, _away()).announce() == impatient.settings.work.sweep_seconds


def test_the_heart_beats_while_the_sweep_ingests(impatient: Line, arm: Callable[..., None]) -> None:
    manifests = [impatient.accept(f"/{number}.jpg", PICTURE) for number in range(2)]
    arm(f"ingest.after-start@{manifests[0].id}", "sleep 6")
    sweep = Sweep(impatient.services, _away())
    sweep.heartbeat = Background("heartbeat", sweep.announce, seconds=0.1, first=0)
    sweep.heartbeat.start()
    time.sleep(0.01)
    at_work = threading.Thread(target=sweep.run)
    at_work.start()
    try:
        uploads = impatient.services.metadata.uploads
        while at_work.is_alive():
            time.sleep(0.2)
            found = uploads.find(manifests[1].id, host_lost=LOST)
            assert found is None or found.state is not IngestState.FAILED
            assert uploads.mark_lost_hosts(LOST) == 0
    finally:
        at_work.join()
        sweep.heartbeat.close()


@pytest.mark.parametrize("table", ["host", "failure"])
def test_an_answer_of_postgres_that_nobody_foresaw_stops_no_other_step(line: Line, table: str) -> None:
    """Raise an error in a trigger, which stands for a missing right, a damaged index or a bug of ours: none has a code
    that we know."""
    _refuse_writes(line, table)
    manifest = _failed(line)
    queue = Recorder()
    waiting = line.accept("/b.jpg", PICTURE)
    sweep = Sweep(line.services, queue)
    for _ in range(2):
        sweep.run()
        with suppress(RuntimeError):  # the thread that it has goes on all the same
            sweep.announce()
    assert waiting.id in queue.waiting
    entry = line.services.staging.look(manifest)
    assert entry is not None
    assert entry.quarantined
    if table == "host":  # the failures are another step's
        assert [one.id for one in line.services.metadata.failures.page(None, 10).items] == [manifest]


def _refuse_writes(line: Line, table: str) -> None:
    assert line.settings.database_url is not None
    connection = psycopg2.connect(line.settings.database_url.get_secret_value())
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'nobody foresaw this'; END $$"
        )
        cursor.execute(f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION refuse()")
    connection.close()


def _away() -> Recorder:
    queue = Recorder()
    queue.away = True
    return queue


def test_entries_not_yet_recorded_are_announced(line: Line) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    Sweep(line.services, Recorder()).announce()
    told = line.services.metadata.uploads.find(manifest.id, host_lost=timedelta(minutes=5))
    assert told is not None
    assert told.state is IngestState.STAGED


@under_every_lock
def test_a_silent_host_shows_its_uploads_as_lost_until_it_returns(line: Line) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    sweep = Sweep(line.services, Recorder())
    sweep.announce()
    uploads = line.services.metadata.uploads
    assert uploads.mark_lost_hosts(timedelta(0)) == 1
    told = uploads.find(manifest.id, host_lost=timedelta(0))
    assert told is not None
    assert told.failure is not None
    assert (told.state, told.failure.kind) == (IngestState.FAILED, "host-lost")
    sweep.announce()
    told = uploads.find(manifest.id, host_lost=timedelta(minutes=5))
    assert told is not None
    assert told.state is IngestState.STAGED
    assert line.services.metadata.failures.page(None, 10).items == []


@pytest.mark.parametrize("wish", ["retry", "discard"])
def test_a_wish_is_carried_out_by_the_host_that_holds_the_bytes(line: Line, wish: str) -> None:
    manifest = _failed(line)
    assert line.services.metadata.failures.wish(manifest, wish) is not None
    Sweep(line.services, Recorder()).run()
    assert line.services.metadata.failures.page(None, 10).items == []
    entry = line.services.staging.look(manifest)
    assert (entry is not None) == (wish == "retry")
    if entry is not None:
        assert not entry.quarantined
        assert entry.attempts.total == 0


@pytest.mark.parametrize("wish", ["retry", "discard"])
@pytest.mark.parametrize("number", range(3))
def test_a_wish_that_the_disk_refuses_keeps_no_other(
    line: Line, arm: Callable[..., None], number: int, wish: str
) -> None:
    made = [_failed(line) for _ in range(3)]
    failures = line.services.metadata.failures
    for upload_id in made:
        failures.wish(upload_id, wish)
    folder = {"retry": "accepted", "discard": "trash"}[wish]
    arm(f"staging.move-to-{folder}@{made[number]}", "errno EIO")
    sweep = Sweep(line.services, Recorder())
    sweep.run()
    assert [one.id for one in failures.page(None, 10).items] == [made[number]]
    sweep.run()
    assert failures.page(None, 10).items == []


def test_quarantine_and_failure_rows_are_reconciled_both_ways(line: Line) -> None:
    upload_id = _failed(line)
    failures = line.services.metadata.failures
    failures.remove(upload_id)
    Sweep(line.services, Recorder()).run()
    assert [one.id for one in failures.page(None, 10).items] == [upload_id]
    assert line.services.staging.discard(upload_id)
    Sweep(line.services, Recorder()).run()
    assert failures.page(None, 10).items == []


def _failed(line: Line) -> UUID:
    manifest = line.accept("/a.jpg", PICTURE)
    path = line.settings.staging_path / "accepted" / str(manifest.id)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0" * 64)
    assert line.ingest(manifest.id).value == "failed"
    return manifest.id
