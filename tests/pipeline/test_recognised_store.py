"""What stands before a store and asks whether it is ours: no method passes it, and what was seen lately is free."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from core.errors import StrangeStore
from pipeline.jobs import gc
from pipeline.stores import recognition
from pipeline.stores.recognition import Marker
from storage.interface import ObjectStore, Stored
from storage.recognised import RecognisedStore
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.recognising import NOT_OURS, PICTURES, brought, content, mark_as

pytestmark = pytest.mark.usefixtures("impatient")

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
