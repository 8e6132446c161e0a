"""A store that hangs is left for another one that has the bytes; those who need this one come again later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from core.errors import StoreUnavailable
from core.model import Asset
from core.sections import Placement
from pipeline.assets.read import open_blob
from pipeline.replicas import repair, sources
from pipeline.stores import failover
from pipeline.uploads.ingest import Outcome
from storage.interface import ObjectStore, Span, Stored
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(320, 240), "JPEG")
OTHER = encoded(photo(300, 200), "JPEG")


class Hanging:
    """A store whose every call waits until it is told to go on."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.name = store.name
        self.hangs = False
        self.calls: list[str] = []
        self.closed = 0
        self._goes_on = threading.Event()
        self._goes_on.set()

    def hang(self) -> None:
        self.hangs = True
        self._goes_on.clear()

    def go_on(self) -> None:
        self.hangs = False
        self._goes_on.set()

    def head(self, key: str) -> Stored:
        self._wait("look" if key == failover.PROBE_KEY else "head")
        return self._store.head(key)

    def put(self, key: str, body: BinaryIO, **said: Any) -> Stored:
        self._wait("put")
        return self._store.put(key, body, **said)

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        self._wait("open")
        return self._counted(self._store.open(key, span))

    @contextmanager
    def _counted(self, opened: AbstractContextManager[BinaryIO]) -> Iterator[BinaryIO]:
        with opened as body:
            yield body
        self.closed += 1

    def _wait(self, call: str) -> None:
        self.calls.append(call)
        assert self._goes_on.wait(60)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def line(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(failover, "OPEN_SECONDS", 0.1)
    monkeypatch.setattr(failover, "WRITE_SECONDS", 0.1)
    monkeypatch.setattr(failover, "LOOK_SECONDS", 0.05)
    stores = {name: {"kind": "filesystem", "root": str(tmp_path / name)} for name in ("main", "front")}
    stores["front"]["tier"] = "hot"
    rules = (
        Placement(match="/bare/both/**", store="front", replicas=("main",)),
        Placement(match="/bare/second/**", store="main", replicas=("front",)),
        Placement(match="/bare/soon/**", store="main", replicas=("front",), replication="background"),
        Placement(match="/bare/front/**", store="front"),
    )
    made = Line(tmp_path, database_url, stores=stores, placement=rules)
    yield made
    made.close()


@pytest.fixture
def front(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    line.services.recognitions["front"].look()  # is marked, before anybody looks how long that takes
    made = Hanging(line.services.stores["front"])
    monkeypatch.setitem(line.services.stores, "front", made)  # type: ignore[arg-type]  # it is a dict
    yield made
    made.go_on()


def read(line: Line, asset: Asset) -> bytes:
    with sources.stream(line.services, asset.blob.sha256) as body:
        return body.read()


def until(condition: Any) -> None:
    last = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


def test_a_reader_leaves_a_store_that_hangs_and_the_next_ones_do_not_ask_it(line: Line, front: Hanging) -> None:
    asset = line.bring("/bare/both/a.jpg", PICTURE)
    assert read(line, asset) == PICTURE
    assert front.calls.count("open") == 1, "the hotter one is read first"
    front.hang()
    for _ in range(3):
        assert read(line, asset) == PICTURE
    assert front.calls.count("open") == 2
    front.go_on()
    until(lambda: front.closed == 2)  # what came late is closed
    assert read(line, asset) == PICTURE
    assert front.calls.count("open") == 3, "it is asked first again"
    assert len(line.services.metadata.blobs.replicas(asset.blob.sha256)) == 2


def test_many_late_readers_of_one_store_send_the_next_ones_away(line: Line, front: Hanging) -> None:
    asset = line.bring("/bare/front/a.jpg", PICTURE)
    front.hang()
    found: list[bytes] = []
    readers = [threading.Thread(target=lambda: found.append(read(line, asset))) for _ in range(failover.LATE_READERS)]
    for reader in readers:
        reader.start()
    silence = line.services.silence("front")
    until(lambda: silence.lasts(failover.LATE_READERS))
    with pytest.raises(StoreUnavailable, match="does not answer"):
        read(line, asset)
    front.go_on()
    for reader in readers:
        reader.join()
    assert found == [PICTURE] * failover.LATE_READERS
    assert read(line, asset) == PICTURE


def test_one_upload_waits_for_a_store_that_hangs_and_the_others_go_on(line: Line, front: Hanging) -> None:
    waiting, other = line.accept("/bare/front/a.jpg", PICTURE), line.accept("/bare/front/b.jpg", OTHER)
    elsewhere = line.accept("/bare/elsewhere.jpg", OTHER)
    front.hang()
    outcomes: list[Outcome] = []
    first = threading.Thread(target=lambda: outcomes.append(line.ingest(waiting.id)))
    first.start()
    until(lambda: line.services.silence("front").lasts())
    assert line.ingest(other.id) is Outcome.AGAIN
    assert line.ingest(elsewhere.id) is Outcome.STORED
    assert front.calls.count("put") == 1
    front.go_on()
    first.join()
    assert outcomes == [Outcome.STORED]
    until(lambda: line.ingest(other.id) is Outcome.STORED)
    assert read(line, line.services.metadata.assets.by_id(other.asset_id)) == OTHER  # type: ignore[arg-type]  # it is there


def test_a_replica_at_once_that_hangs_costs_the_first_store_no_more_bytes(line: Line, front: Hanging) -> None:
    front.hang()
    with line.services.silence("front").call(0.001):
        time.sleep(0.01)
        manifest = line.accept("/bare/second/a.jpg", PICTURE)
        assert line.ingest(manifest.id) is Outcome.AGAIN
    assert list(line.services.stores["main"].scan()) == []


def test_of_the_replicas_in_the_background_one_waits_for_a_store_that_hangs(line: Line, front: Hanging) -> None:
    for number, body in enumerate((PICTURE, OTHER)):
        line.bring(f"/bare/soon/{number}.jpg", body)
    front.hang()
    first = threading.Thread(target=lambda: repair.repair(line.services))
    first.start()
    until(lambda: line.services.silence("front").lasts())
    assert repair.repair(line.services) == 0
    assert front.calls.count("open") == 1
    front.go_on()
    first.join()
    until(lambda: repair.repair(line.services) or len(list(line.services.store("front").scan())) == 2)


def test_a_slow_answer_to_a_writer_is_no_silence(line: Line, front: Hanging) -> None:
    """Its look is answered, so the next one need not wait for the first."""
    with line.services.silence("front").call(0.001):
        time.sleep(0.01)
        assert line.bring("/bare/front/a.jpg", PICTURE)
    assert "look" in front.calls


@pytest.mark.parametrize("alone", [True, False])
def test_a_request_does_not_wait_for_the_last_store_as_long_as_it_hangs(
    line: Line, front: Hanging, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """Whether it is the only one that has the bytes, or the others hang as well."""
    asset = line.bring("/bare/front/a.jpg" if alone else "/bare/both/a.jpg", PICTURE)
    main = Hanging(line.services.stores["main"])
    monkeypatch.setitem(line.services.stores, "main", main)  # type: ignore[arg-type]  # it is a dict
    web = line.services.settings.web.model_copy(update={"store_seconds": 0.2})
    services = replace(line.services, settings=line.services.settings.model_copy(update={"web": web}))
    front.hang()
    main.hang()
    with pytest.raises(StoreUnavailable):
        open_blob(services, asset.blob, None)
    hung = [front] if alone else [front, main]
    assert [store.closed for store in hung] == [0] * len(hung), "they hang still"
    for store in hung:
        store.go_on()
    until(lambda: all(store.closed == 1 for store in hung))  # what came late is closed
    body, stack = open_blob(services, asset.blob, None)
    with stack:
        assert body.read() == PICTURE
