"""What the catalogue is to be told is committed with what it tells of, or not at all."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.errors import Superseded
from core.model import Details
from metadata.facade import Metadata
from metadata.journal import outbox
from metadata.journal.journal_records import Asked, Counter, Deleted, Fact, Recorded, Rendered
from tests.metadata.conftest import Query
from tests.metadata.made import KEEPING, LEASE, Ingester, facts, manifest, output, path, want


def told(metadata: Metadata) -> list[Fact]:
    """What waits, and then no more does."""
    events = metadata.outbox.page(0, 1000)
    found = metadata.outbox.facts(events)
    metadata.outbox.forget([event.id for event in events])
    return [fact for _, fact in found]


def test_an_asset_is_told_of_with_all_that_is_known(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest("/a/b.png", details=Details("alt", {"k": "v"}, ("t",)))
    ingester.ingest(made, [want("thumb", profile="small")])
    [found] = told(metadata)
    assert isinstance(found, Recorded)
    assert found.asset == metadata.assets.by_id(made.asset_id)
    assert (found.fingerprint, found.upload_id, found.host_id) == (made.fingerprint, made.id, made.host_id)
    assert list(found.eager) == [want("thumb", profile="small")]
    assert told(metadata) == []


def test_a_replay_tells_nothing(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    ingester.ingest(made)
    told(metadata)
    assert ingester.ingest(made).replay
    assert told(metadata) == []


def test_what_is_rolled_back_tells_nothing(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    reserved = ingester.reserve(facts(made))
    metadata.blobs.give_up_pending(timedelta(0), 10)
    with pytest.raises(Superseded):
        metadata.assets.record(made, [reserved], [])
    assert told(metadata) == []


def test_a_deletion_is_told_of_until_it_is_purged(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest("/a.png")
    ingester.ingest(made)
    ingester.delete("/a.png")
    [found] = told(metadata)
    assert isinstance(found, Deleted), "what is true by now, and that once"
    assert (found.asset_id, found.path, found.entry, found.blob) == (made.asset_id, "/a.png", 0, made.sha256)
    assert (found.fingerprint, found.upload_id) == (made.fingerprint, made.id)
    ingester.delete("/a.png")
    assert told(metadata) == [], "there was nothing left to delete"
    ingester.delete("/a.png", purge=True)
    purged, counter = told(metadata)
    assert isinstance(purged, Deleted)
    assert (purged.asset_id, purged.path, purged.blob) == (made.asset_id, None, None)
    assert counter == Counter(path("/a.png").hash, 1), "or its number would be given again"


def test_a_purge_at_once_tells_of_the_counter_too(metadata: Metadata, ingester: Ingester) -> None:
    ingester.ingest(manifest("/a.png"))
    ingester.delete("/a.png", purge=True)
    assert [type(one) for one in told(metadata)] == [Deleted, Counter]


def test_variants_are_told_of_when_they_are_ready(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    recorded = ingester.ingest(made, [want("thumb"), want("square")], LEASE)
    told(metadata)
    ingester.finish(recorded)
    found = told(metadata)
    ids = {one.recipe["name"]: one.id for one in recorded.leased}
    assert {one.want.recipe["name"]: one.output for one in found if isinstance(one, Rendered)} == {
        name: output(str(ids[name])) for name in ("thumb", "square")
    }
    assert {one.source for one in found if isinstance(one, Rendered)} == {made.sha256}
    ingester.finish(recorded)
    assert told(metadata) == [], "its lease is over"


def test_who_asks_later_is_told_of(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    ingester.ingest(made)
    told(metadata)
    metadata.variants.want(made.asset_id, made.sha256, want("wide", eager=False))
    assert told(metadata) == [Asked(made.asset_id, made.sha256, want("wide", eager=False))]


def test_what_is_gone_without_a_trace_is_left_out(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    recorded = ingester.ingest(made, [want("thumb")], LEASE)
    ingester.finish(recorded)
    ingester.delete(made.path, purge=True)
    metadata.blobs.collect(10, KEEPING)
    assert {type(one) for one in told(metadata)} == {Deleted, Counter}


def test_a_refill_names_everything(metadata: Metadata, ingester: Ingester, query: Query) -> None:
    kept, gone, purged = manifest("/kept.png"), manifest("/gone.png"), manifest("/purged.png")
    ingester.finish(ingester.ingest(kept, [want("thumb")], LEASE))
    metadata.variants.want(kept.asset_id, kept.sha256, want("wide", eager=False))
    for made in (gone, purged):
        ingester.ingest(made)
    ingester.delete("/gone.png")
    ingester.delete("/purged.png", purge=True)
    before = {repr(one) for one in told(metadata)}
    assert metadata.outbox.refill() == len(before) == 6
    assert {repr(one) for one in told(metadata)} == before
    assert query("SELECT count(*) FROM catalogue_event") == [(0,)]


@pytest.mark.parametrize("rows", [1, outbox.REFILL])
def test_numbers_go_on_beyond_what_the_catalogue_has_seen(
    metadata: Metadata, ingester: Ingester, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(outbox, "REFILL", rows)
    ingester.ingest(manifest())
    ingester.ingest(manifest())
    metadata.outbox.advance(1000)
    first = metadata.database.run(outbox._renumber, 1000)
    assert first == min(rows, 2), "no more in one transaction"
    assert metadata.outbox.renumber(1000) == 2 - first
    waiting = [event.id for event in metadata.outbox.page(0, 10)]
    assert len(waiting) == 2
    assert min(waiting) > 1000
    ingester.ingest(manifest())
    assert metadata.outbox.last() > max(waiting)
    metadata.outbox.advance(5)
    assert metadata.outbox.renumber(5) == 0
    assert len(metadata.outbox.page(1000, 10)) == 3
