"""While one of the stores that shall hold the bytes at once refuses them, the others get them once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from core.errors import Forbidden, MillraceError, StoreFull, StoreUnavailable
from core.model import VariantState
from core.sections import Placement
from pipeline.uploads.ingest import Outcome
from storage.interface import ObjectStore, Stored
from tests.contracts.object_store import sha256
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(320, 240), "JPEG")
REFUSALS = (StoreFull("full"), Forbidden("403"), StoreUnavailable("500"))


class Watched:
    """A store that counts what is sent to it, and refuses while it is told to."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.name = store.name
        self.refusal: MillraceError | None = None
        self.taken: list[str] = []

    def put(self, key: str, body: BinaryIO, **said: Any) -> Stored:
        if self.refusal is not None:
            body.read(1000)
            raise self.refusal
        self.taken.append(key)
        return self._store.put(key, body, **said)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    stores = {name: {"kind": "filesystem", "root": str(tmp_path / name)} for name in ("main", "away")}
    rule = Placement(match="/**", store="main", replicas=("away",))
    made = Line(tmp_path, database_url, stores=stores, placement=(rule,))
    yield made
    made.close()


@pytest.fixture
def watched(line: Line, monkeypatch: pytest.MonkeyPatch) -> dict[str, Watched]:
    found = {name: Watched(store) for name, store in line.services.stores.items()}
    for name, one in found.items():
        monkeypatch.setitem(line.services.stores, name, one)  # type: ignore[arg-type]  # it is a dict
    return found


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_an_upload_is_sent_once_to_the_store_that_takes_it(
    line: Line, watched: dict[str, Watched], refusal: MillraceError
) -> None:
    watched["away"].refusal = refusal
    manifest = line.accept("/bare/a.jpg", PICTURE)
    for _ in range(5):
        assert line.ingest(manifest.id) is Outcome.AGAIN
    assert len(watched["main"].taken) == 1
    watched["away"].refusal = None
    assert line.ingest(manifest.id) is Outcome.STORED
    assert [len(one.taken) for one in watched.values()] == [1, 1]
    assert len(line.services.metadata.blobs.replicas(manifest.sha256)) == 2
    assert [one.size for one in line.services.stores["main"].scan()] == [len(PICTURE)]


@pytest.mark.parametrize("refuses", ["main", "away"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_variant_is_sent_once_to_the_store_that_takes_it(
    line: Line, watched: dict[str, Watched], refusal: MillraceError, refuses: str
) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    want = line.services.profiles.eager("/full/a.jpg", asset.image)
    for one in want:
        line.services.metadata.variants.want(asset.id, asset.blob.sha256, one)
    for store in watched.values():
        store.taken.clear()
    watched[refuses].refusal = refusal
    for _ in range(5):
        _make_due(line)
        line.derive(asset.blob.sha256)
    takes = next(one for name, one in watched.items() if name != refuses)
    assert len(takes.taken) == len(want)
    watched[refuses].refusal = None
    _make_due(line)
    line.derive(asset.blob.sha256)
    assert {one.state for one in line.variants(asset).values()} == {VariantState.READY}
    assert [len(one.taken) for one in watched.values()] == [len(want)] * 2


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_what_was_sent_is_looked_at_and_not_just_believed(line: Line, watched: dict[str, Watched], damage: str) -> None:
    watched["away"].refusal = REFUSALS[0]
    manifest = line.accept("/bare/a.jpg", PICTURE)
    assert line.ingest(manifest.id) is Outcome.AGAIN
    [key] = watched["main"].taken
    main = line.services.stores["main"]
    main.delete([key])
    if damage == "other bytes":
        main.put(key, BytesIO(b"torn"), size=4, sha256=sha256(b"torn"), media_type="image/jpeg")
    watched["away"].refusal = None
    assert line.ingest(manifest.id) is Outcome.STORED
    for one in line.services.metadata.blobs.replicas(manifest.sha256):
        with line.services.stores[one.store].open(one.key) as body:
            assert body.read() == PICTURE


def test_a_replica_that_was_missing_is_sent_once_and_healthy(line: Line, watched: dict[str, Watched]) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    for one in line.services.metadata.blobs.replicas(asset.blob.sha256):
        line.services.stores[one.store].delete([one.key])
        line.services.metadata.repairs.mark(one, "missing", "lost")
    watched["away"].refusal = REFUSALS[0]
    watched["main"].taken.clear()
    again = line.accept("/bare/again.jpg", PICTURE)
    for _ in range(3):
        assert line.ingest(again.id) is Outcome.AGAIN
    assert len(watched["main"].taken) == 1
    assert [one.store for one in line.services.metadata.blobs.replicas(asset.blob.sha256)] == ["main"]


def _make_due(line: Line) -> None:
    time.sleep(line.settings.work.backoff_cap_seconds)
