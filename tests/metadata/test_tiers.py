"""Copies for faster reading: made once, as old as their last read, and gone before anything else is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from core.model import BlobFacts, StoreState
from metadata.blobs.collection import Held, Keeping
from metadata.blobs.promotion import ATTEMPTS, Promotion
from metadata.blobs.references import Reference
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, NO_TIME, RULES, Ingester, facts, manifest
from tests.metadata.promoting import copies, fill, healthy, promote


@pytest.fixture
def history(query: Query) -> Any:
    return lambda: [result for (result,) in query("SELECT result FROM verify_event ORDER BY id")]


def only_main(
    blob: BlobFacts, held: Sequence[Held], references: Iterator[Reference], said: Mapping[str, StoreState]
) -> frozenset[str]:
    return frozenset({"main"})


def test_a_copy_is_a_row_that_is_due_and_there_once(metadata: Metadata, brought: list[bytes], history: Any) -> None:
    assert promote(metadata, brought[:2]) == Promotion(sorted(brought[:2]))
    assert promote(metadata, brought[:2]) == Promotion()
    assert len(fill(metadata)) == 2
    assert set(promote(metadata, brought[:2]).there) == set(brought[:2])
    assert [one.promoted for one in metadata.blobs.replicas(brought[0])] == [True, False]
    assert history() == [], "copies come and go"


def test_what_was_read_longest_ago_makes_room(metadata: Metadata, brought: list[bytes], query: Query) -> None:
    for number, sha256 in enumerate(brought[:3]):
        promote(metadata, [sha256])
        query("UPDATE replica SET promoted_at = now() - interval '1 day' WHERE blob = %s AND store = 'hot'", sha256)
        minutes = (30, 20, 40)[number]
        metadata.tiers.read([sha256], HOUR)
        at = "SET promoted_at = promoted_at - %s * interval '1 minute' WHERE blob = %s AND store = 'hot'"
        query(f"UPDATE replica {at}", minutes, sha256)
    [kept, also, evicted] = fill(metadata)
    assert promote(metadata, [brought[3]]).wanted == [brought[3]]
    assert set(copies(metadata)) == {brought[0], brought[1], brought[3]}
    assert [(one.store, one.key) for one in metadata.blobs.garbage(100) if one.key.endswith(f".{evicted.generation}")]
    assert {kept.blob.sha256, also.blob.sha256, evicted.blob.sha256} == set(brought[:3])
    assert healthy(metadata, evicted.blob.sha256) == ["main"]


def test_a_copy_that_nobody_read_yet_is_as_old_as_itself(metadata: Metadata, brought: list[bytes]) -> None:
    for sha256 in brought[:4]:
        promote(metadata, [sha256])
        fill(metadata)
    assert set(copies(metadata)) == set(brought[1:4])


def test_reading_is_written_down_on_the_copy_coarsely(metadata: Metadata, brought: list[bytes], query: Query) -> None:
    promote(metadata, brought[:1])
    metadata.tiers.read(brought[:2], HOUR)
    [(made,)] = query("SELECT promoted_at FROM replica WHERE store = 'hot'")
    query("UPDATE replica SET promoted_at = promoted_at - interval '2 hours' WHERE store = 'hot'")
    metadata.tiers.read(brought[:2], HOUR)
    [(read,)] = query("SELECT promoted_at FROM replica WHERE promoted_at IS NOT NULL")
    assert made < read


@pytest.mark.parametrize("state", ["draining", "read-only"])
def test_a_store_that_takes_nothing_new_gets_no_copies(
    metadata: Metadata, brought: list[bytes], query: Query, state: str
) -> None:
    query("INSERT INTO store (name, state) VALUES ('hot', %s)", state)
    assert promote(metadata, brought[:1]) == Promotion()
    query("UPDATE store SET state = 'active'")
    assert promote(metadata, brought[:1]).wanted


def test_a_copy_that_a_rule_asks_for_meanwhile_stays(metadata: Metadata, ingester: Ingester) -> None:
    same = manifest("/a", b"same")
    ingester.ingest(same)
    promote(metadata, [same.sha256])
    [copy] = fill(metadata)
    again = manifest("/b", b"same")
    [reserved] = metadata.blobs.reserve([(facts(again), "hot")], HOUR)
    assert (reserved.healthy, reserved.replica) == (True, copy)
    metadata.assets.record(again, [reserved.replica], [])
    assert metadata.tiers.evict("hot", 0, RULES) == 0
    assert not metadata.tiers.drop(copy)
    assert healthy(metadata, same.sha256) == ["hot", "main"]


def test_the_last_good_bytes_are_no_copy_that_may_go(metadata: Metadata, brought: list[bytes], history: Any) -> None:
    promote(metadata, brought[:1])
    [copy] = fill(metadata)
    [own] = [one for one in metadata.blobs.replicas(brought[0]) if one.store == "main"]
    assert metadata.repairs.mark(own, "corrupt", "wrong") == "marked"
    assert metadata.tiers.evict("hot", 0, RULES) == 0
    assert not metadata.tiers.drop(copy)
    assert metadata.repairs.mark(copy, "corrupt", "wrong, too") == "marked"
    assert history() == ["corrupt", "corrupt"]
    [lost] = metadata.inventory.quarantined(["main", "hot"], 10)
    assert lost.states == {"main": "corrupt", "hot": "corrupt"}


def test_a_copy_that_is_found_wrong_goes_and_is_no_loss(metadata: Metadata, brought: list[bytes]) -> None:
    promote(metadata, brought[:1])
    [copy] = fill(metadata)
    assert metadata.repairs.mark(copy, "missing", "gone") == "dropped"
    assert metadata.repairs.mark(copy, "missing", "gone") is None
    assert metadata.repairs.due(10, NO_TIME) == []
    assert promote(metadata, brought[:1]).wanted == brought[:1]
    assert metadata.inventory.sick(["hot"], (b"", ""), 10) == []
    [unfilled] = metadata.stores.page("hot", b"", 10)
    assert not metadata.inventory.is_sick(unfilled)


def test_a_copy_that_cannot_be_filled_is_given_up(metadata: Metadata, brought: list[bytes], history: Any) -> None:
    promote(metadata, brought[:1])
    for left in reversed(range(ATTEMPTS)):
        [due] = metadata.repairs.due(10, NO_TIME)
        metadata.repairs.failed(metadata.repairs.begin(due), "the store is full", NO_TIME)
        assert len(copies(metadata)) == (left > 0)
    assert metadata.repairs.due(10, NO_TIME) == []
    assert history() == []


def test_a_read_is_written_down_where_it_was_not_for_long(
    metadata: Metadata, brought: list[bytes], query: Query
) -> None:
    def times() -> list[Any]:
        return [at for (at,) in query("SELECT last_read_at FROM blob WHERE sha256 = ANY(%s) ORDER BY 1", brought[:2])]

    assert times() == [None, None]
    metadata.tiers.read(brought[:1], HOUR)
    [first, never] = times()
    assert never is None
    metadata.tiers.read(brought[:2], HOUR)
    [again, second] = times()
    assert (again, second > first) == (first, True)
    query("UPDATE blob SET last_read_at = last_read_at - interval '61 minutes'")
    metadata.tiers.read(brought[:2], HOUR)
    assert min(times()) > second


def test_gc_leaves_copies_alone_and_takes_them_with_their_blob(metadata: Metadata, ingester: Ingester) -> None:
    kept = manifest("/kept", b"same")
    ingester.ingest(kept)
    ingester.ingest(manifest("/gone", b"same"))
    promote(metadata, [kept.sha256])
    fill(metadata)
    ingester.delete("/gone", grace=timedelta(0))
    metadata.blobs.collect(10, Keeping(RULES, only_main))
    assert healthy(metadata, kept.sha256) == ["hot", "main"]
    ingester.delete("/kept", grace=timedelta(0))
    assert metadata.blobs.collect(10, Keeping(RULES, only_main)) == 1
    assert metadata.stores.page("hot", b"", 10) == []
    assert promote(metadata, [kept.sha256]) == Promotion()
