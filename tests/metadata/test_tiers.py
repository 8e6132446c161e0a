"""Copies for faster reading: within their bound whoever promotes, made once, and gone before anything else is."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import Superseded
from core.model import BlobFacts, Replica, StoreState
from metadata.blobs import promotion
from metadata.blobs.blobs import CONFIRM, asked
from metadata.blobs.collection import Held, Keeping
from metadata.blobs.demotion import Home, Move
from metadata.blobs.promotion import ATTEMPTS, Promotion
from metadata.blobs.references import Reference
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, NO_TIME, RULES, Ingester, facts, manifest

SIZE = 100
ROOM = 3 * SIZE


@pytest.fixture
def brought(metadata: Metadata, query: Query) -> list[bytes]:
    """Blobs of one size, in the store that their rule names."""
    query(
        "INSERT INTO blob (sha256, size, media_type)"
        " SELECT sha256(n::text::bytea), %s, '' FROM generate_series(1, 16) n",
        SIZE,
    )
    made = query(
        "INSERT INTO replica (blob, store, generation, state) SELECT sha256, 'main', nextval('generation_seq'),"
        " 'healthy' FROM blob RETURNING blob"
    )
    return [bytes(sha256) for (sha256,) in made]


@pytest.fixture
def history(query: Query) -> Any:
    return lambda: [result for (result,) in query("SELECT result FROM verify_event ORDER BY id")]


def promote(metadata: Metadata, blobs: Sequence[bytes], up_to: int = ROOM, max_bytes: int = SIZE) -> Promotion:
    return metadata.tiers.promote(blobs, "hot", up_to=up_to, max_bytes=max_bytes)


def fill(metadata: Metadata) -> list[Replica]:
    """As the repair of what is due does."""
    filled = []
    for due in metadata.repairs.due(100, NO_TIME):
        filled.append(metadata.repairs.begin(due))
        metadata.repairs.done(filled[-1])
    return filled


def only_main(
    blob: BlobFacts, held: Sequence[Held], references: Iterator[Reference], said: Mapping[str, StoreState]
) -> frozenset[str]:
    return frozenset({"main"})


def copies(metadata: Metadata, store: str = "hot") -> list[bytes]:
    return [one.blob.sha256 for one in metadata.stores.page(store, b"", 100) if one.promoted]


def healthy(metadata: Metadata, sha256: bytes) -> list[str]:
    return [one.store for one in metadata.blobs.replicas(sha256)]


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


@pytest.mark.parametrize("seed", range(12))
def test_the_running_sum_is_the_sum(
    metadata: Metadata, brought: list[bytes], query: Query, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    for name in chance.choices(list(STEPS), k=40):
        if name == "fold":
            monkeypatch.setattr(promotion, "CHANGES", 1 - min(promotion.CHANGES, 1))
        with suppress(Superseded):
            STEPS[name](metadata, chance.sample(brought, 3))
        kept = "SELECT coalesce(sum(bytes), 0), coalesce(sum(unfilled), 0) FROM promoted_bytes WHERE store = 'hot'"
        found = "FROM replica JOIN blob ON sha256 = blob WHERE store = 'hot' AND promoted_at IS NOT NULL"
        unfilled = "coalesce(sum(size) FILTER (WHERE state <> 'healthy'), 0)"
        assert query(kept) == query(f"SELECT coalesce(sum(size), 0), {unfilled} {found}"), name


def _begin(metadata: Metadata, sha256: bytes) -> None:
    main = next((one for one in metadata.blobs.replicas(sha256) if one.store == "main"), None)
    if main is not None:
        home = Home(main, "main", datetime.now(UTC), datetime.now(UTC), [])
        metadata.demotion.begin(home, Move(1, "hot", "main"), NO_TIME)


def _upload(metadata: Metadata, sha256: bytes) -> None:
    reserved = metadata.blobs.reserve([(BlobFacts(sha256, SIZE, ""), "hot")], HOUR)
    values = asked([one.replica for one in reserved])
    metadata.database.run(lambda connection: connection.execute(CONFIRM, values) and None)


def _promoted(metadata: Metadata) -> list[Replica]:
    return [one for one in metadata.stores.page("hot", b"", 100) if one.promoted][:1]


STEPS: dict[str, Callable[[Metadata, list[bytes]], object]] = {
    "promote": promote,
    "fill": lambda metadata, _: fill(metadata),
    "fail": lambda metadata, _: [metadata.repairs.failed(one, "", NO_TIME) for one in metadata.repairs.due(2, NO_TIME)],
    "evict": lambda metadata, _: metadata.tiers.evict("hot", SIZE, RULES),
    "ask for": lambda metadata, blobs: metadata.repairs.ensure(blobs[0], "hot", NO_TIME),
    "upload": lambda metadata, blobs: _upload(metadata, blobs[0]),
    "mark": lambda metadata, _: [metadata.repairs.mark(one, "missing", "") for one in _promoted(metadata)],
    "drop": lambda metadata, _: [metadata.tiers.drop(one) for one in _promoted(metadata)],
    "demote": lambda metadata, blobs: _begin(metadata, blobs[0]),
    "fold": lambda metadata, _: metadata.tiers.evict("hot", ROOM, RULES),
}


def test_what_is_not_filled_yet_makes_no_room(metadata: Metadata, brought: list[bytes]) -> None:
    assert promote(metadata, brought[:5]).wanted == sorted(brought[:3])
    assert promote(metadata, brought[5:]).wanted == []
    fill(metadata)
    assert promote(metadata, brought[5:]).wanted == sorted(brought[5:8])


def test_sixteen_promoters_never_pass_the_bound(metadata: Metadata, brought: list[bytes], query: Query) -> None:
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            [[used]] = query("SELECT count(*) FROM replica WHERE promoted_at IS NOT NULL")
            most[0] = max(most[0], used)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(16) as pool:
        for _ in range(6):
            wanted = list(pool.map(lambda sha256: promote(metadata, [sha256]).wanted, brought))
            assert sum(map(len, wanted)) >= 1
            fill(metadata)
    over.set()
    watcher.join()
    assert most == [3]
    assert len(copies(metadata)) == 3
    assert all(healthy(metadata, sha256)[-1] == "main" for sha256 in brought)


def test_one_blob_that_many_want_is_wanted_once(metadata: Metadata, brought: list[bytes]) -> None:
    with ThreadPoolExecutor(16) as pool:
        promotions = list(pool.map(lambda _: promote(metadata, brought[:1]), range(16)))
    assert [one.wanted for one in promotions if one.wanted] == [brought[:1]]


def test_too_large_objects_stay_where_they_are(metadata: Metadata, brought: list[bytes]) -> None:
    assert promote(metadata, brought[:1], max_bytes=SIZE - 1) == Promotion()
    assert promote(metadata, brought[:1], up_to=SIZE - 1) == Promotion()


@pytest.mark.parametrize("state", ["draining", "read-only"])
def test_a_store_that_takes_nothing_new_gets_no_copies(
    metadata: Metadata, brought: list[bytes], query: Query, state: str
) -> None:
    query("INSERT INTO store (name, state) VALUES ('hot', %s)", state)
    assert promote(metadata, brought[:1]) == Promotion()
    query("UPDATE store SET state = 'active'")
    assert promote(metadata, brought[:1]).wanted


def test_a_smaller_bound_lets_the_surplus_go_filled_or_not(metadata: Metadata, brought: list[bytes]) -> None:
    promote(metadata, brought[:1])
    fill(metadata)
    promote(metadata, brought[1:3])
    assert metadata.tiers.evict("hot", ROOM, RULES) == 0
    assert metadata.tiers.evict("hot", 2 * SIZE + 1, RULES) == 1
    assert copies(metadata) == sorted(brought[1:3])
    assert metadata.tiers.evict("hot", 0, RULES) == 2
    assert metadata.tiers.evict("hot", 0, RULES) == 0


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
