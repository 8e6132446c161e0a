"""The bound of a hot store: its running sum is the sum, and no number of promoters passes it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from core.errors import Superseded
from core.model import BlobFacts, Replica
from metadata.blobs import promotion
from metadata.blobs.blobs import CONFIRM, asked
from metadata.blobs.demotion import Home, Move
from metadata.blobs.promotion import Promotion
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, NO_TIME, RULES
from tests.metadata.promoting import ROOM, SIZE, copies, fill, healthy, promote


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


def test_a_smaller_bound_lets_the_surplus_go_filled_or_not(metadata: Metadata, brought: list[bytes]) -> None:
    promote(metadata, brought[:1])
    fill(metadata)
    promote(metadata, brought[1:3])
    assert metadata.tiers.evict("hot", ROOM, RULES) == 0
    assert metadata.tiers.evict("hot", 2 * SIZE + 1, RULES) == 1
    assert copies(metadata) == sorted(brought[1:3])
    assert metadata.tiers.evict("hot", 0, RULES) == 2
    assert metadata.tiers.evict("hot", 0, RULES) == 0
