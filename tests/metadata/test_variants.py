"""Leases and fences."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest

from core.errors import Superseded
from core.model import FailureReason, LeasedVariant, Variant, VariantState
from core.sections import Retention
from metadata.facade import Metadata
from metadata.variants.variants import Stored
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, KEEPING, LEASE, NO_TIME, Ingester, manifest, output, path, want

MOMENT = timedelta(milliseconds=1)
REASON = FailureReason("bad-image", "it is broken")


@pytest.fixture
def source(ingester: Ingester) -> bytes:
    """A blob with three due variants."""
    made = manifest()
    ingester.ingest(made, [want(name) for name in "abc"])
    return made.sha256


def test_the_first_lease_takes_all_later_ones_one_each(metadata: Metadata, source: bytes) -> None:
    first = metadata.variants.lease(source, MOMENT)
    assert [one.more for one in first] == [False] * 3
    time.sleep(0.05)
    again = [metadata.variants.lease(source, LEASE) for _ in range(4)]
    assert [len(one) for one in again] == [1, 1, 1, 0]
    assert [one.more for [one] in again[:3]] == [True, True, False]
    assert {(one.fence, one.attempts, one.unfinished) for [one] in again[:3]} == {(2, 2, 2)}


def test_one_variant_can_be_leased_by_name(metadata: Metadata, source: bytes) -> None:
    [*all_three] = metadata.variants.lease(source, MOMENT)
    time.sleep(0.05)
    [one] = metadata.variants.lease(source, LEASE, one=all_three[1].id)
    assert one.id == all_three[1].id
    assert metadata.variants.lease(source, LEASE, one=one.id) == []


def test_32_workers_lease_each_variant_once(ingester: Ingester, metadata: Metadata) -> None:
    sources = []
    for number in range(20):
        made = manifest(f"/{number}")
        ingester.ingest(made, [want(name) for name in "abc"])
        sources.append(made.sha256)
    start = threading.Barrier(32)

    def work(_number: int) -> list[UUID]:
        start.wait(60)
        return [one.id for source in sources for one in metadata.variants.lease(source, HOUR)]

    with ThreadPoolExecutor(32) as pool:
        leased = [one for result in pool.map(work, range(32)) for one in result]
    assert len(leased) == len(set(leased)) == 60


def test_a_stale_holder_changes_nothing(metadata: Metadata, ingester: Ingester, source: bytes, query: Query) -> None:
    stale = metadata.variants.lease(source, MOMENT)
    time.sleep(0.05)
    fresh = [metadata.variants.lease(source, LEASE)[0] for _ in stale]
    before = query("SELECT * FROM variant ORDER BY id")
    assert metadata.variants.renew(stale, LEASE) == []
    metadata.variants.give_back(stale, delay=NO_TIME)
    metadata.variants.failed(stale, REASON, final=True, delay=NO_TIME)
    assert metadata.failures.page(None, 10).items == []
    late = [Stored(one, [ingester.reserve(output(f"late {one.id}"))]) for one in stale]
    assert metadata.variants.finish(late) == 0
    assert query("SELECT * FROM variant ORDER BY id") == before
    assert metadata.blobs.collect(10, KEEPING) == 3, "what the stale holder stored is garbage"
    assert set(ingester.garbage()) == {one.replicas[0].key for one in late}
    assert len(metadata.variants.renew(fresh, LEASE)) == 3


def test_finish_is_all_or_nothing(metadata: Metadata, ingester: Ingester, source: bytes) -> None:
    leased = metadata.variants.lease(source, LEASE)
    done = [Stored(one, [ingester.reserve(output(one.recipe["name"]))]) for one in leased]
    metadata.blobs.renew(done[1].replicas[0])
    with pytest.raises(Superseded):
        metadata.variants.finish(done)
    assert _states(metadata, leased) == {VariantState.PENDING}
    again = [Stored(one, [ingester.reserve(output(one.recipe["name"]))]) for one in leased]
    assert metadata.variants.finish(again) == 3
    assert _states(metadata, leased) == {VariantState.READY}
    assert metadata.variants.finish(again) == 0, "told twice"


def test_equal_outputs_are_one_blob(metadata: Metadata, ingester: Ingester, source: bytes) -> None:
    leased = metadata.variants.lease(source, LEASE)
    replica = ingester.reserve(output("the same bytes"))
    assert metadata.variants.finish([Stored(one, [replica]) for one in leased]) == 3


def test_an_orderly_end_does_not_count(metadata: Metadata, source: bytes) -> None:
    leased = metadata.variants.lease(source, LEASE)
    metadata.variants.give_back(leased, delay=HOUR, reason=FailureReason("store-unavailable", "away"))
    assert metadata.variants.due_sources(10) == []
    assert metadata.variants.lease(source, LEASE) == []
    assert {one.attempts for one in _rows(metadata, leased)} == {0}


def test_an_error_counts_and_ends_visibly(metadata: Metadata, source: bytes) -> None:
    leased = metadata.variants.lease(source, LEASE)
    metadata.variants.failed(leased, REASON, final=False, delay=NO_TIME)
    [one] = metadata.variants.lease(source, LEASE)
    assert (one.attempts, one.unfinished) == (2, 1)
    metadata.variants.failed([one], REASON, final=True, delay=NO_TIME)
    [failure] = metadata.failures.page(None, 10).items
    assert (failure.id, failure.subject, failure.path, failure.reason) == (one.id, "variant", "/a.png", REASON)
    [row] = _rows(metadata, [one])
    assert (row.state, row.failure) == (VariantState.FAILED, REASON)
    assert metadata.variants.retry(one.id)
    assert not metadata.variants.retry(one.id)
    assert metadata.failures.page(None, 10).items == []
    [again] = metadata.variants.lease(source, LEASE, one=one.id)
    assert (again.attempts, again.unfinished, again.fence) == (1, 1, one.fence + 1)


def test_a_failure_that_is_let_go_takes_its_variant_along(metadata: Metadata, ingester: Ingester, query: Query) -> None:
    """Or it would stay failed for ever, with nothing left by which to have it tried again."""
    made = manifest()
    wish = want("a")
    ingester.ingest(made)

    def fail() -> UUID:
        metadata.variants.want(made.asset_id, made.sha256, wish)
        [leased] = metadata.variants.lease(made.sha256, LEASE)
        metadata.variants.failed([leased], REASON, final=True, delay=NO_TIME)
        return leased.id

    metadata.variants.forget(fail())
    assert metadata.variants.of_asset(made.asset_id) == []
    assert metadata.failures.page(None, 10).items == []
    fail()
    assert metadata.retention.prune(Retention()) == 0
    query("UPDATE failure SET failed_at = failed_at - interval '91 days'")
    assert metadata.retention.prune(Retention()) == 2, "the variant and its failure"
    assert metadata.variants.want(made.asset_id, made.sha256, wish).state is VariantState.PENDING


def test_however_many_ask_there_is_one_variant(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    ingester.ingest(made)
    with ThreadPoolExecutor(16) as pool:
        told = list(
            pool.map(lambda _: metadata.variants.want(made.asset_id, made.sha256, want("x", eager=False)), range(50))
        )
    assert len({one.id for one in told}) == 1
    found = metadata.variants.find(made.asset_id, want("x").recipe_hash)
    assert found == told[0]
    assert found is not None
    assert (found.profile, found.eager, found.state) == (None, False, VariantState.PENDING)
    other = manifest("/b")
    ingester.ingest(other)
    assert metadata.variants.find(other.asset_id, want("x").recipe_hash) is None


def _states(metadata: Metadata, leased: list[LeasedVariant]) -> set[VariantState]:
    return set(metadata.variants.states([one.id for one in leased]).values())


def _rows(metadata: Metadata, leased: list[LeasedVariant]) -> list[Variant]:
    ids = {one.id for one in leased}
    newest = metadata.assets.newest(path("/a.png"))
    assert newest is not None
    return [one for one in metadata.variants.of_asset(newest.id) if one.id in ids]
