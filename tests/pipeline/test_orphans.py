"""gc: what may go and what must stay, the marker, a dry run that changes nothing, kills, and live work beside it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest

from core.errors import BadRequest, Misconfigured
from core.model import Asset, BlobFacts, Job, JobState
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.jobs import gc
from pipeline.jobs.registry import create
from pipeline.replicas.identification import identify, is_ours
from storage.object_keys import MARKER
from storage.recognised import bare
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import contents, go_on, killed, run
from tests.pipeline.line import Line
from tests.pipeline.test_placement import lined, read

DAY = 86_400.0
NOW = timedelta(0)
PICTURE = encoded(photo(), "JPEG")


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


def collected(line: Line, watch: Callable[[Job], None] = lambda job: None, **arguments: object) -> Job:
    return run(line, gc.KIND, watch, **arguments)


def put(line: Line, key: str, body: bytes = b"left over", store: str = "main") -> str:
    digest = hashlib.sha256(body).digest()
    line.services.store(store).put(key, BytesIO(body), size=len(body), sha256=digest, media_type="text/plain")
    return key


def orphan(line: Line, number: int = 0, store: str = "main") -> str:
    """An object as a process leaves it that died after its reservation was given up, two days ago."""
    body = b"left over %d" % number
    facts = BlobFacts(hashlib.sha256(body).digest(), len(body), "image/png")
    [reserved] = line.services.metadata.blobs.reserve([(facts, store)], grace=NOW)
    line.services.metadata.blobs.give_up_pending(NOW, 100)
    line.collect()
    put(line, reserved.replica.key, body, store)
    age(line, reserved.replica.key, store)
    return reserved.replica.key


def age(line: Line, key: str, store: str = "main", seconds: float = 2 * DAY) -> None:
    [file] = (line.settings.home / store).rglob(key)
    then = time.time() - seconds
    os.utime(file, (then, then))


def keys(line: Line, store: str = "main") -> list[str]:
    return [one.key for one in line.services.store(store).scan()]


def rows(line: Line) -> dict[str, list[object]]:
    """Everything in the database, and where its sequences are."""
    url = line.settings.database_url
    assert url is not None
    connection = psycopg2.connect(url.get_secret_value())
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        found = {}
        for name, kind in sorted(cursor.fetchall()):
            if kind in ("r", "S"):
                what = "t::text" if kind == "r" else "last_value, is_called"
                cursor.execute(f'SELECT {what} FROM "{name}" AS t ORDER BY 1')
                found[name] = cursor.fetchall()
    connection.close()
    return found


def test_orphans_go_and_everything_else_stays(line: Line) -> None:
    asset = line.bring("/a.jpg", PICTURE)
    kept = keys(line)
    foreign = [put(line, "somebody/else.txt"), put(line, f"{'ab' * 32}.01"), put(line, f"{'AB' * 32}.1")]
    gone = [orphan(line, number) for number in range(3)]
    job = collected(line, grace_seconds=0)
    assert job.state is JobState.DONE
    assert [job.progress[name] for name in ("orphans", "removed", "foreign", "young")] == [3, 3, 3, 0]
    assert sorted(keys(line)) == sorted([*kept, *foreign])
    assert not {*keys(line)} & {*gone}
    assert read(line, asset) == PICTURE
    assert is_ours(line.services, "main")


def test_what_is_young_stays_until_it_is_old(line: Line) -> None:
    key = orphan(line)
    age(line, key, seconds=60)
    assert collected(line).progress["young"] == 1
    assert keys(line) == [key]
    assert collected(line, grace_seconds=30).progress["removed"] == 1
    assert keys(line) == []


def test_nothing_goes_under_a_reservation(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are there for days, and the upload that put them lives still."""
    monkeypatch.setattr("pipeline.maintenance.give_up_reservations", lambda services: 0)
    facts = BlobFacts(hashlib.sha256(b"left over").digest(), 9, "image/png")
    [reserved] = line.services.metadata.blobs.reserve([(facts, "main")], grace=NOW)
    key = put(line, reserved.replica.key)
    age(line, key)
    assert collected(line, grace_seconds=0).progress["orphans"] == 0
    assert keys(line) == [key]


def test_objects_that_the_database_has_not_come_to_stay(line: Line) -> None:
    """It came from a backup: their generations may yet be given out, and what they hold may be wanted."""
    key = put(line, f"{hashlib.sha256(b'left over').hexdigest()}.{10**9}")
    age(line, key)
    job = collected(line, grace_seconds=0)
    assert (job.progress["ahead"], job.progress["orphans"]) == (1, 0)
    assert keys(line) == [key]


def test_what_the_rows_let_go_goes_at_once(line: Line) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    deletion.delete(line.services, AssetPath.from_text("/bare/a.jpg"), asset.entry, purge=True)
    assert collected(line).progress["removed"] == 1
    assert keys(line) == []


def lose_marker(line: Line, store: str) -> None:
    bare(line.services.store(store)).delete([MARKER])


def test_a_store_without_the_marker_is_refused_with_the_command(line: Line) -> None:
    key = orphan(line)
    lose_marker(line, "main")
    job = collected(line)
    assert job.state is JobState.FAILED
    assert "storage identify main" in str(job.error)
    assert key in [path.name for path in (line.settings.home / "main").rglob("*")]
    identify(line.services, "main")
    assert collected(line, stores=["main"]).progress["removed"] == 1
    assert keys(line) == []


def test_another_installation_removes_nothing(
    line: Line, tmp_path: Path, make_database: Callable[[str], str], template_database: str
) -> None:
    """A database made anew beside an old store knows nothing of it."""
    asset = line.bring("/bare/a.jpg", PICTURE)
    age(line, *keys(line))
    before = contents(tmp_path / "main")
    other = lined(tmp_path, make_database(template_database))
    whose = line.services.installation.ask()
    assert f"belongs to the installation {whose}" in str(collected(other, stores=["main"]).error)
    for take_over in (None, uuid4()):
        with pytest.raises(BadRequest, match=f"--take-over {whose}"):
            identify(other.services, "main", take_over=take_over)
    assert contents(tmp_path / "main") == before
    identify(other.services, "main", take_over=whose)
    assert is_ours(other.services, "main")
    assert not is_ours(line.services, "main")
    assert collected(other, stores=["main"], grace_seconds=0).progress["ahead"] == 1  # gc keeps it even without a grace
    identify(line.services, "main", take_over=other.services.installation.ask())
    assert read(line, asset) == PICTURE
    other.close()


@pytest.mark.parametrize("step", ["identify.after-delete", "identify.after-mark"])
def test_a_take_over_that_is_cut_short_is_gone_on_with(
    line: Line,
    make_database: Callable[[str], str],
    template_database: str,
    tmp_path: Path,
    arm: Callable[..., None],
    step: str,
) -> None:
    line.bring("/bare/a.jpg", PICTURE)
    other = lined(tmp_path, make_database(template_database))
    whose = line.services.installation.ask()
    arm(step, "errno EIO")
    with pytest.raises(OSError, match=rf"{step}|Input/output"):
        identify(other.services, "main", take_over=whose)
    assert not is_ours(line.services, "main")
    identify(other.services, "main")
    assert is_ours(other.services, "main")
    other.close()


def test_something_else_in_the_place_of_the_marker_is_no_marker(line: Line) -> None:
    store = bare(line.services.store("main"))
    store.establish()
    store.put(MARKER, BytesIO(b"hello"), size=5, sha256=hashlib.sha256(b"hello").digest(), media_type="text/plain")
    with pytest.raises(Misconfigured, match="not a marker"):
        identify(line.services, "main")
    assert collected(line, stores=["main"]).state is JobState.FAILED


def test_a_dry_run_changes_nothing(line: Line, tmp_path: Path) -> None:
    line.bring("/a.jpg", PICTURE)
    gone = line.bring("/b.jpg", encoded(photo(50, 50), "JPEG"))
    deletion.delete(line.services, AssetPath.from_text("/b.jpg"), gone.entry, purge=True)
    orphan(line)
    age(line, orphan(line, 1), seconds=5)
    put(line, "somebody/else.txt")
    line.services.metadata.blobs.reserve([(gone.blob, "fast")], grace=NOW)
    before = contents(tmp_path), rows(line)
    progress, _ = gc.survey(line.services, gc.Collection.of(line.services, {}))
    assert (progress.orphans, progress.orphan_bytes, progress.young, progress.foreign) == (1, 11, 1, 1)
    assert (contents(tmp_path), rows(line)) == before
    line.bring("/c.jpg", encoded(photo(51, 50), "JPEG"))
    assert (contents(tmp_path), rows(line)) != before


@pytest.mark.parametrize("step", ["job.after-step", "gc.after-discard", "gc.after-delete"])
def test_killed_at_any_step_it_is_gone_on_with(line: Line, tmp_path: Path, arm: Callable[..., None], step: str) -> None:
    asset = line.bring("/a.jpg", PICTURE)
    kept = keys(line)
    for number in range(3):
        orphan(line, number)
    created = create(line.services, gc.KIND, {})
    arm(step, "kill")
    killed(line, tmp_path, created)
    assert go_on(line, created.id).state is JobState.DONE
    assert keys(line) == kept
    assert read(line, asset) == PICTURE
    assert line.services.metadata.inventory.count_garbage(["main"]) == 0


def test_beside_uploads_and_deletes_nothing_that_lives_goes(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "BATCH", 3)
    monkeypatch.setattr("pipeline.maintenance.give_up_reservations", lambda services: 0)  # no grace in these settings
    stop, errors = threading.Event(), []
    alive: list[tuple[Asset, bytes]] = []

    def live(worker: int) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                body = encoded(photo(60, 60 + number % 7), "JPEG")  # often the same, so that blobs die and come back
                asset = line.bring(f"/bare/{worker}/{number}.jpg", body)
                if number % 4:
                    deletion.delete(line.services, AssetPath.from_text(asset.path), asset.entry, purge=True)
                else:
                    alive.append((asset, body))
        except BaseException as error:
            errors.append(error)

    beside = [threading.Thread(target=live, args=(worker,)) for worker in range(2)]
    for one in beside:
        one.start()
    try:
        jobs = []
        while len(jobs) < 4 or len(alive) < 10:
            jobs.append(collected(line, grace_seconds=0))
    finally:
        stop.set()
        for one in beside:
            one.join()
    assert not errors
    assert all(job.state is JobState.DONE for job in jobs)
    collected(line, grace_seconds=0)
    assert all(read(line, asset) == body for asset, body in alive)
    assert len(keys(line)) == len({asset.blob.sha256 for asset, _ in alive})


@pytest.mark.parametrize(
    "arguments", [{"stores": ["nowhere"]}, {"grace_seconds": -1}, {"grace_seconds": "1"}, {"hurry": 1}]
)
def test_arguments_that_cannot_work_are_refused(line: Line, arguments: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        create(line.services, gc.KIND, arguments)
