"""A store is recognised before it is believed: no disk in its place, an empty bucket, somebody else's, an old one."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import NotFound, StoreUnavailable, StrangeStore
from core.model import Asset
from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion, read
from pipeline.jobs import gc, verification
from pipeline.journal.writing import write
from pipeline.replicas import repair
from pipeline.replicas.identification import identify, identify_filled
from pipeline.stores import recognition
from pipeline.stores.recognition import Marker, mark, marker_of
from pipeline.uploads.ingest import Outcome
from storage.interface import ObjectStore, Stored
from storage.object_keys import MARKER
from storage.recognised import RecognisedStore, bare
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.store_places import Bucket, Directory, Place, Schema
from tests.s3_server import S3Server, s3_server

PICTURES = [encoded(photo(40 + number, 30), "JPEG") for number in range(4)]
NOT_OURS = "not the store that this installation filled"
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


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody in a test waits for a second look, nor for what was seen to be old."""
    monkeypatch.setattr(recognition, "REFUSED_SECONDS", 0)
    monkeypatch.setattr(recognition, "FRESH_SECONDS", 0)


def content(line: Line, asset: Asset) -> bytes:
    body, stack = read.open_blob(line.services, asset.blob, None)
    with stack:
        return body.read()


def states(line: Line) -> set[str]:
    query = "SELECT DISTINCT state FROM replica"
    return {row[0] for row in line.services.metadata.database.read(lambda one: one.exec_driver_sql(query).all())}


def brought(line: Line, number: int) -> Asset:
    return line.bring(f"/bare/{number}.jpg", PICTURES[number])


def refused(line: Line, asset: Asset, place: Place) -> None:
    """Whatever this process does now, nothing of what is there is believed, nothing is put there, an upload waits."""
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


CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "put": lambda store: store.put("a", io.BytesIO(b""), size=0, sha256=hashlib.sha256().digest(), media_type="x/y"),
    "open": lambda store: store.open("a").__enter__(),
    "head": lambda store: store.head("a"),
    "scan": lambda store: next(iter(store.scan())),
    "delete": lambda store: store.delete(["a"]),
    "copy_from": lambda store: store.copy_from(store, "a", "b"),
    "url": lambda store: store.url("a", ttl=timedelta(1)),
    "restore": lambda store: store.restore("a"),
    "sweep_unfinished": lambda store: store.sweep_unfinished(),
}
HARMLESS = {"name", "breaker", "establish", "close"}


@pytest.mark.parametrize("method", [name for name in vars(ObjectStore) if not name.startswith("_")])
def test_no_method_reaches_a_store_that_is_not_ours(line: Line, method: str) -> None:
    """A new one of the contract has to be named here, or be harmless."""
    mark_as(line, Marker(uuid4(), "main"))
    store = line.services.default_store
    reached: list[str] = []

    class Reached:
        name = "main"

        def __getattr__(self, name: str) -> object:
            reached.append(name)
            raise AssertionError(name)

    made = RecognisedStore(Reached(), line.services.recognitions["main"])  # type: ignore[arg-type]  # that is the test
    assert isinstance(store, RecognisedStore)
    if method in HARMLESS:
        return
    with pytest.raises(StrangeStore, match=NOT_OURS):
        CALLS[method](made)
    assert reached == []


def mark_as(line: Line, marker: Marker | None) -> ObjectStore:
    store = bare(line.services.default_store)
    store.establish()
    store.delete([MARKER])
    if marker is not None:
        mark(store, marker)
    return store


def test_markers_of_before_stay_valid_and_names_must_fit(line: Line) -> None:
    own = line.services.installation.ask()
    asset = brought(line, 0)
    for name, fits in ((None, True), ("main", True), ("far", False)):
        mark_as(line, Marker(own, name))
        if fits:
            assert content(line, asset) == PICTURES[0]
        else:
            with pytest.raises(StrangeStore, match=r"'far' of this installation.*mixed up"):
                line.services.default_store.head("a")
    identify(line.services, "main", take_over=own)
    assert content(line, asset) == PICTURES[0]


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'"x"', b'{"installation": 1}', b'{"installation": "x"}', b"\xff"])
def test_what_is_no_marker_is_none(line: Line, text: bytes) -> None:
    store = mark_as(line, None)
    digest = hashlib.sha256(text).digest()
    store.put(MARKER, io.BytesIO(text), size=len(text), sha256=digest, media_type="application/json")
    with pytest.raises(StrangeStore, match=f"{NOT_OURS}.*is not a marker"):
        line.services.default_store.head("a")


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


USE = """
import sys
from pathlib import Path
from tests.pipeline.line import Line
line = Line(Path(sys.argv[1]), sys.argv[2])
line.services.default_store.sweep_unfinished()
"""


@pytest.mark.parametrize("step", ["recognition.before-mark", "recognition.after-mark"])
def test_a_death_at_the_first_use_costs_nobody_anything(line: Line, arm: Callable[..., None], step: str) -> None:
    arm(step, "kill")
    assert line.settings.database_url is not None
    words = [str(line.settings.home), line.settings.database_url.get_secret_value()]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", USE, *words], env=environment, check=False).returncode < 0
    assert content(line, brought(line, 0)) == PICTURES[0]
    assert marker_of(bare(line.services.default_store)) == Marker(line.services.installation.ask(), "main")


def test_a_store_full_of_what_the_database_does_not_know_is_not_marked(
    line: Line, tmp_path: Path, make_database: Callable[[str], str], template_database: str
) -> None:
    """The database was lost: gc would take everything for left over."""
    brought(line, 0)
    mark_as(line, None)
    other = Line(line.settings.home, make_database(template_database))
    with pytest.raises(StrangeStore, match=r"knows none of them.*storage rebuild"):
        other.services.default_store.sweep_unfinished()
    other.close()


@pytest.mark.parametrize("left", ["blobs", "catalogue"])
def test_strangers_objects_hide_nothing_of_ours(
    line: Line,
    left: str,
    make_database: Callable[[str], str],
    template_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come first in a listing, and are more than are looked at."""
    monkeypatch.setattr(recognition, "LISTED", 10)
    brought(line, 0)
    write(line.services)
    store, put = bare(line.services.default_store), hashlib.sha256(b"").digest()
    mine = [one.key for one in store.scan() if one.key != MARKER]
    store.delete([key for key in mine if key.startswith("catalog/") != (left == "catalogue")])
    for key in ("-", "A", "catalog-"):
        for number in range(11):
            store.put(f"{key}{number}.jpg", io.BytesIO(), size=0, sha256=put, media_type="image/jpeg")
    mark_as(line, None)
    other = Line(line.settings.home, make_database(template_database))
    with pytest.raises(StrangeStore, match=r"knows none of them.*storage rebuild"):
        other.services.default_store.sweep_unfinished()
    store.delete(mine)
    other.services.default_store.sweep_unfinished()
    other.close()


def unmarked(line: Line) -> None:
    """As a store was that is older than markers."""
    mark_as(line, None)
    line.services.metadata.database.run(lambda one: one.exec_driver_sql("DELETE FROM identified_store"))


def test_a_migration_marks_a_store_in_which_it_finds_what_the_rows_say(line: Line) -> None:
    asset = brought(line, 0)
    unmarked(line)
    with pytest.raises(StrangeStore, match="storage identify main"):
        line.services.default_store.head("a")
    said: list[str] = []
    identify_filled(line.services, said.append)
    assert said == ["main: identified, as 1 recorded objects are there"]
    assert content(line, asset) == PICTURES[0]
    identify_filled(line.services, said.append)
    assert len(said) == 1, "there is nothing to do any more"


def test_a_migration_marks_no_store_that_lacks_any_of_them(line: Line) -> None:
    """Nor one that is not mounted, nor somebody else's."""
    asset, _ = brought(line, 0), brought(line, 1)
    unmarked(line)
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    bare(line.services.default_store).delete([replica.key])
    said: list[str] = []
    identify_filled(line.services, said.append)
    assert "1 of 2 recorded objects" in said[-1]
    place = Directory(line.settings.home / "store")
    place.take_away()
    identify_filled(line.services, said.append)
    assert "is its disk mounted" in said[-1]
    assert place.holdings() == set()
    place.bring_back()
    mark_as(line, Marker(uuid4(), "main"))
    identify_filled(line.services, said.append)
    assert "belongs to the installation" in said[-1]


def test_what_is_seen_lately_costs_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "FRESH_SECONDS", 30)
    asset = brought(line, 0)
    looks: list[object] = []
    monkeypatch.setattr(recognition, "marker_of", lambda *given: looks.append(given))
    for _ in range(5):
        assert content(line, asset) == PICTURES[0]
    assert looks == []


def test_readers_need_no_postgresql_to_recognise_a_store(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = brought(line, 0)
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    later = Line(line.settings.home, "postgresql:///nobody?host=/nonexistent")
    with later.services.default_store.open(replica.key) as body:
        assert body.read() == PICTURES[0]
    found: Stored = later.services.default_store.head(replica.key)
    assert found.size == len(PICTURES[0])
    later.close()


def test_gc_says_which_store_is_not_ours(line: Line) -> None:
    brought(line, 0)
    mark_as(line, Marker(uuid4(), "main"))
    assert NOT_OURS in str(run(line, gc.KIND).error)


def test_the_contract_is_kept_by_the_one_who_stands_before_a_store() -> None:
    for name, method in inspect.getmembers(RecognisedStore, inspect.isfunction):
        if not name.startswith("_"):
            assert hasattr(ObjectStore, name), f"{name} is of no store"
            del method
