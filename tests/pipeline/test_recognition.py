"""A store is recognised before it is believed: no disk in its place, an empty bucket, another's, an old one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import NotFound, StoreUnavailable, StrangeStore
from core.model import Asset
from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion
from pipeline.jobs import verification
from pipeline.journal.writing import write
from pipeline.replicas import repair
from pipeline.stores import recognition
from pipeline.uploads.ingest import Outcome
from storage.object_keys import MARKER
from storage.recognised import bare
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.recognising import NOT_OURS, PICTURES, brought, content, states
from tests.pipeline.store_places import Bucket, Directory, Place, Schema
from tests.s3_server import S3Server, s3_server

pytestmark = pytest.mark.usefixtures("impatient")

KINDS = ("directory", "directory with what was written below", "bucket", "schema")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        yield made


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, server: S3Server, make_database: Callable[[str], str]
) -> Place:
    match request.param:
        case "bucket":
            return Bucket(server, f"b{uuid4().hex}")
        case "schema":
            return Schema(make_database("template1"))
        case "directory":
            return Directory(tmp_path / "mount")
        case _:
            return Directory(tmp_path / "mount", below=("objects", "tmp"))


@pytest.fixture
def host(place: Place, tmp_path: Path, database_url: str) -> Iterator[Host]:
    made = Host(place, tmp_path / "home", database_url)
    yield made
    made.close()


class Host:
    """One after the other, the processes of a host."""

    def __init__(self, place: Place, home: Path, database_url: str) -> None:
        self._given = home, database_url, place.options()
        self.line = self._start()

    def begin_anew(self) -> Line:
        self.line.close()
        self.line = self._start()
        return self.line

    def close(self) -> None:
        self.line.close()

    def _start(self) -> Line:
        home, database_url, options = self._given
        return Line(home, database_url, stores={"main": options})


def refused(line: Line, asset: Asset, place: Place) -> None:
    """This process believes nothing of what is there and puts nothing there, for all that it does; an upload waits."""
    before = place.holdings()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            content(line, asset)
    with pytest.raises(StrangeStore, match=NOT_OURS):
        line.services.default_store.head("0" * 64 + ".1")
    upload = line.accept("/bare/3.jpg", PICTURES[3])
    assert line.ingest(upload.id) is Outcome.WAITING
    line.collect()
    maintenance.sweep_stores(line.services)
    assert repair.repair(line.services) == 0
    with pytest.raises(StoreUnavailable):
        write(line.services)
    assert states(line) <= {"healthy", "pending"}, "nothing is marked for what another place lacks"
    assert place.holdings() == before
    assert line.services.staging.look(upload.id) is not None


def recovered(line: Line, *assets: Asset) -> None:
    """And the upload that waited is stored."""
    for asset, picture in zip(assets, PICTURES, strict=False):
        assert content(line, asset) == picture
    while not (waiting := line.due()):
        time.sleep(0.01)
    assert [line.ingest(one) for one in waiting] == [Outcome.STORED]
    assert states(line) == {"healthy"}


def test_what_is_missing_at_the_start_is_waited_for(host: Host, place: Place) -> None:
    """A mount, or an empty bucket in place of a full one."""
    assets = [brought(host.line, number) for number in range(2)]
    gone = deletion.delete(host.line.services, AssetPath.from_text("/bare/1.jpg"), 0, purge=True)
    assert gone is not None
    place.take_away()
    refused(host.begin_anew(), assets[0], place)
    place.bring_back()
    recovered(host.begin_anew(), assets[0])


def test_what_goes_in_the_middle_comes_back(host: Host, place: Place) -> None:
    asset = brought(host.line, 0)
    place.take_away()
    refused(host.line, asset, place)
    place.bring_back()
    recovered(host.line, asset)


@pytest.mark.parametrize("below", [(), ("objects", "tmp")])
def test_a_mount_that_goes_between_two_writes_gets_nothing(
    line: Line, monkeypatch: pytest.MonkeyPatch, below: tuple[str, ...]
) -> None:
    """Not even while what was seen lately would still count: to look is cheap there."""
    monkeypatch.setattr(recognition, "FRESH_SECONDS", 30)
    place = Directory(line.settings.home / "store", below=below)
    asset = brought(line, 0)
    place.take_away()
    upload = line.accept("/bare/3.jpg", PICTURES[3])
    assert line.ingest(upload.id) is Outcome.WAITING
    assert place.holdings() == set()
    place.bring_back()
    recovered(line, asset)


def test_a_store_that_was_emptied_of_everything_is_no_new_one(host: Host, place: Place) -> None:
    """No row names it any more, and a disk that is not there must not begin a second one."""
    brought(host.line, 0)
    deletion.delete(host.line.services, AssetPath.from_text("/bare/0.jpg"), 0, purge=True)
    host.line.collect()
    place.take_away()
    line = host.begin_anew()
    with pytest.raises(StrangeStore, match=NOT_OURS):
        line.services.default_store.head(MARKER)
    assert place.holdings() == set()
    place.bring_back()


def test_another_installations_store_is_refused_by_both(
    host: Host, place: Place, tmp_path: Path, make_database: Callable[[str], str], template_database: str
) -> None:
    """Two installations whose settings name the same place: no deletion of one takes what the other has."""
    asset = brought(host.line, 0)
    other = Host(place, tmp_path / "other", make_database(template_database))
    upload = other.line.accept("/bare/0.jpg", PICTURES[0])
    assert other.line.ingest(upload.id) is Outcome.WAITING
    whose = host.line.services.installation.ask()
    with pytest.raises(StrangeStore, match=f"belongs to the installation {whose}.*--take-over {whose}"):
        other.line.services.default_store.delete([MARKER])
    other.line.collect()
    assert content(host.line, asset) == PICTURES[0]
    other.close()


def test_a_store_restored_from_an_older_snapshot_is_mended(host: Host, place: Place) -> None:
    """Its marker fits. What came after it is lost where no other source is left; what was purged since goes again."""
    line = host.line
    kept, purged = brought(line, 0), brought(line, 1)
    place.copy()
    late = brought(line, 2)
    [replica] = line.services.metadata.blobs.replicas(purged.blob.sha256)
    deletion.delete(line.services, AssetPath.from_text("/bare/1.jpg"), 0, purge=True)
    line.collect()
    assert replica.key not in place.holdings()
    place.restore()
    assert replica.key in place.holdings()
    line = host.begin_anew()
    with pytest.raises(StoreUnavailable):
        content(line, late)
    assert line.services.metadata.blobs.replicas(late.blob.sha256) == [], "looked for twice, and lost"
    assert content(line, kept) == PICTURES[0]
    progress = run(line, verification.KIND).progress
    assert (progress["failed"], progress["removed"], progress["orphans"]) == (1, 1, 0)
    assert replica.key not in place.holdings(), "what was purged is purged again"


def test_one_answer_condemns_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = brought(line, 0)
    store = bare(line.services.default_store)
    opening, looking, answers = store.open, store.head, iter(range(2))

    def open_(key: str, span: object = None) -> Any:
        if key != MARKER and next(answers, None) is not None:
            raise NotFound("not at this moment")
        return opening(key, span)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(store, "open", open_)
    with pytest.raises(StoreUnavailable):
        content(line, asset)
    assert states(line) == {"healthy"}
    monkeypatch.setattr(store, "open", opening)
    assert content(line, asset) == PICTURES[0]
    store.delete([one.key for one in store.scan() if one.key != MARKER])
    monkeypatch.setattr(store, "head", looking)
    with pytest.raises(StoreUnavailable):
        content(line, asset)
    assert states(line) == {"missing"}


def test_a_new_store_is_marked_by_those_who_come_first(tmp_path: Path, database_url: str, place: Place) -> None:
    """All at once, and no person has to do anything."""
    hosts = [Host(place, tmp_path / str(number), database_url) for number in range(5)]

    def use(number: int) -> Asset:
        return hosts[number].line.bring(f"/bare/{number}.jpg", PICTURES[number % 4])

    with ThreadPoolExecutor(5) as pool:
        assets = list(pool.map(use, range(5)))
    assert MARKER in place.holdings()
    for number, asset in enumerate(assets):
        assert content(hosts[-1 - number].line, asset) == PICTURES[number % 4]
    for host in hosts:
        host.close()
