"""A database that came from a backup, beside stores that went on: no key is used twice, what was moved is found again,
and what came later is told."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg2
import pytest

from core.errors import Misconfigured
from core.model import Asset, JobState
from pipeline.jobs import gc, migration, verification
from pipeline.recovery.catching_up import REACH, CaughtUp, catch_up
from pipeline.replicas.quarantine import verdict
from pipeline.stores.recognition import Marker, mark
from storage.interface import Stored
from storage.object_keys import MARKER
from storage.recognised import bare
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import contents, run
from tests.pipeline.line import Line
from tests.pipeline.test_orphans import age, put, rows
from tests.pipeline.test_placement import held_by, lined, read


def picture(number: int) -> bytes:
    return encoded(photo(40 + number, 30), "JPEG")


@dataclass
class Host:
    """A line whose database can go back to an earlier state, as by a dump that is restored."""

    home: Path
    line: Line
    make_database: Callable[[str], str]

    def backup(self) -> str:
        """PostgreSQL copies a database only while nobody is connected to it."""
        url = self.url
        self.line.close()
        copy = self.make_database(urlsplit(url).path.removeprefix("/"))
        self.line = lined(self.home, url)
        return copy

    def restore(self, copy: str) -> Line:
        self.line.close()
        self.line = lined(self.home, copy)
        return self.line

    @property
    def url(self) -> str:
        url = self.line.settings.database_url
        assert url is not None
        return url.get_secret_value()


@pytest.fixture
def host(tmp_path: Path, make_database: Callable[[str], str], template_database: str) -> Iterator[Host]:
    made = Host(tmp_path, lined(tmp_path, make_database(template_database)), make_database)
    for name in made.line.services.stores:
        made.line.services.recognitions[name].look()
    yield made
    made.line.close()


def bring(line: Line, first: int, last: int) -> list[tuple[Asset, bytes]]:
    return [(line.bring(f"/bare/{number}.jpg", picture(number)), picture(number)) for number in range(first, last)]


def caught_up(line: Line, **how: object) -> tuple[CaughtUp, list[str]]:
    unknown: list[str] = []

    def note(_store: str, one: Stored) -> None:
        unknown.append(one.key)

    [*_, last] = catch_up(line.services, unknown=note, **how)  # type: ignore[arg-type]  # as it takes them
    return last, unknown


def recorded(line: Line, asset: Asset) -> list[str]:
    return [one.store for one in line.services.metadata.blobs.replicas(asset.blob.sha256)]


def generations(line: Line) -> list[int]:
    objects = [one.key for name in line.services.stores for one in line.services.store(name).scan()]
    return [found[1] for key in objects if (found := gc.named(key)) is not None]


def test_no_key_is_used_twice_and_what_came_later_is_told(host: Host) -> None:
    before = bring(host.line, 0, 3)
    copy = host.backup()
    later = bring(host.line, 3, 6)
    line = host.restore(copy)
    used = {one.key for one in line.services.store("main").scan()}
    done, unknown = caught_up(line)
    assert (done.listed, done.ahead, done.taken, done.unknown) == (6, 3, 0, 3)
    assert {key.split(".")[0] for key in unknown} == {asset.blob.sha256.hex() for asset, _ in later}
    assert line.services.metadata.inventory.last_generation() == done.generation > max(generations(line))
    # The very uploads that were lost come again, in their order: without catching up they would get the same keys.
    again = bring(line, 3, 6)
    for asset, body in again:
        [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
        assert replica.key not in used
        assert read(line, asset) == body
    assert all(read(line, asset) == body for asset, body in before)
    assert caught_up(line)[0].ahead == 0


def test_a_restored_database_would_use_keys_twice(host: Host) -> None:
    """Why there is catching up at all, and that a forgotten one is told by `verify`."""
    bring(host.line, 0, 1)
    copy = host.backup()
    [(asset, _)] = bring(host.line, 1, 2)
    [lost] = host.line.services.metadata.blobs.replicas(asset.blob.sha256)
    line = host.restore(copy)
    job = run(line, verification.KIND)
    assert (job.progress["ahead"], job.progress["orphans"]) == (1, 0)
    assert not verdict(line.services, job).good
    [(asset, _)] = bring(line, 1, 2)
    [again] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    assert again.key == lost.key


def test_what_was_moved_since_the_backup_is_found_again(host: Host) -> None:
    brought = bring(host.line, 0, 4)
    copy = host.backup()
    moved = run(host.line, migration.KIND, source="main", target="far", delete_source=True)
    assert moved.state is JobState.DONE
    line = host.restore(copy)
    assert recorded(line, brought[0][0]) == ["main"]  # it says so, and nothing is there
    done, unknown = caught_up(line)
    assert (done.taken, done.unknown, unknown) == (4, 0, [])
    for asset, body in brought:
        assert recorded(line, asset) == ["far", "main"]
        assert read(line, asset) == body
    job = run(line, verification.KIND)
    assert verdict(line.services, job).good
    assert (job.progress["missing"], job.progress["repaired"]) == (4, 4)


def test_what_was_repaired_under_another_name_is_found_again(host: Host) -> None:
    [(asset, body)] = bring(host.line, 0, 1)
    copy = host.backup()
    store, blob = host.line.services.store("main"), asset.blob
    [old] = host.line.services.metadata.blobs.replicas(blob.sha256)
    store.delete([old.key])
    host.line.bring("/bare/again.jpg", body)  # it finds nothing there, and puts it again
    line = host.restore(copy)
    assert caught_up(line)[0].taken == 1
    assert read(line, asset) == body
    line.collect()
    assert read(line, asset) == body
    assert verdict(line.services, run(line, verification.KIND)).good


def test_what_does_not_hold_its_bytes_is_not_taken(host: Host) -> None:
    [(asset, body)] = bring(host.line, 0, 1)
    copy = host.backup()
    run(host.line, migration.KIND, source="main", target="far", delete_source=True)
    [file] = (host.home / "far" / "objects").rglob(f"{asset.blob.sha256.hex()}*")
    file.write_bytes(body[:-1] + b"?")
    done, _ = caught_up(host.restore(copy))
    assert (done.taken, done.damaged) == (0, 1)
    assert recorded(host.line, asset) == ["main"]


@pytest.mark.parametrize("step", ["catch-up.after-sequence", "catch-up.after-take"])
def test_cut_short_it_is_begun_again(host: Host, arm: Callable[..., None], step: str) -> None:
    brought = bring(host.line, 0, 3)
    copy = host.backup()
    run(host.line, migration.KIND, source="main", target="far", delete_source=True)
    line = host.restore(copy)
    arm(step, "errno EIO")
    with pytest.raises(OSError, match="error"):
        caught_up(line)
    caught_up(line)
    job = run(line, verification.KIND)
    assert verdict(line.services, job).good
    assert all(read(line, asset) == body for asset, body in brought)
    assert line.services.metadata.inventory.last_generation() >= max(generations(line))


def test_a_dry_run_changes_nothing(host: Host) -> None:
    bring(host.line, 0, 3)
    copy = host.backup()
    run(host.line, migration.KIND, source="main", target="far", delete_source=True)
    bring(host.line, 3, 4)
    line = host.restore(copy)
    before = contents(host.home), rows(line)
    done, unknown = caught_up(line, dry_run=True)
    assert (done.ahead, done.taken, done.unknown, len(unknown)) == (4, 3, 1, 1)
    assert (contents(host.home), rows(line)) == before


def test_a_name_beyond_reach_does_not_use_up_the_sequence(host: Host) -> None:
    """Anybody who may write to the bucket could have put it there."""
    bring(host.line, 0, 1)
    put(host.line, f"{hashlib.sha256(b'left over').hexdigest()}.{2**63 - 1}")
    assert caught_up(host.line)[0].ahead == 0
    job = run(host.line, verification.KIND)
    assert (job.progress["ahead"], job.progress["foreign"]) == (0, 1)
    assert verdict(host.line.services, job).good
    assert host.line.services.metadata.inventory.last_generation() < REACH
    bring(host.line, 1, 2)


def test_a_store_of_another_installation_is_left_alone(host: Host) -> None:
    store = bare(host.line.services.store("main"))
    host.line.services.recognitions["main"].look()
    store.delete([MARKER])
    mark(store, Marker(uuid4(), None))
    before = rows(host.line)
    with pytest.raises(Misconfigured, match="belongs to the installation"):
        caught_up(host.line)
    assert rows(host.line) == before


def test_beside_gc_an_object_is_taken_or_removed_and_never_both(host: Host) -> None:
    """gc decides about objects that nothing names under the same lock."""
    [(asset, body)] = bring(host.line, 0, 1)
    line = host.line
    key = f"{asset.blob.sha256.hex()}.{line.services.metadata.inventory.last_generation()}"
    line.services.store("far").put(
        key, BytesIO(body), size=len(body), sha256=asset.blob.sha256, media_type="image/jpeg"
    )
    age(line, key, "far")
    found = gc.named(key)
    assert found is not None
    url = line.settings.database_url
    assert url is not None
    other = psycopg2.connect(url.get_secret_value())
    other.cursor().execute("SELECT pg_advisory_xact_lock(hashtext('millrace unnamed objects'))")
    outcomes: list[object] = []
    both = [
        threading.Thread(target=lambda: outcomes.append(line.services.metadata.inventory.discard("far", [found]))),
        threading.Thread(target=lambda: outcomes.append(caught_up(line)[0].taken)),
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(1)
        assert one.is_alive()  # both wait for who holds the lock
    other.rollback()
    for one in both:
        one.join()
    other.close()
    assert sorted(map(bool, outcomes)) == [False, True]
    line.collect()
    held = held_by(line, asset.blob)
    there = key in {one.key for one in line.services.store("far").scan()}
    assert ("far" in held) == there
    assert "main" in held
    assert read(line, asset) == body
