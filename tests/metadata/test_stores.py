"""Saying what becomes of a store, while everybody puts something there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import StoreUnavailable, Superseded
from core.model import StoreState
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, LEASE, NO_TIME, Ingester, facts, manifest, output

WRITERS = 16


def test_a_state_is_said_however_many_reserve_without_a_pause(metadata: Metadata, query: Query) -> None:
    """Let the writers overlap, so that at every moment at least one of them reserves."""
    began, said = threading.Semaphore(0), threading.Event()

    def write(number: int) -> int:
        reserved = 0
        while True:
            wanted = [(output(f"{number} {reserved} {one}"), "main") for one in range(20)]
            try:
                metadata.blobs.reserve(wanted, HOUR)
            except Superseded:
                assert said.wait(30)
                return reserved
            reserved += 1
            began.release()

    with ThreadPoolExecutor(WRITERS) as pool:
        writers = [pool.submit(write, number) for number in range(WRITERS)]
        for _ in range(3 * WRITERS):
            assert began.acquire(timeout=30)
        metadata.stores.set_state(StoreState("main", "draining", "other"))
        [(reserved,)] = query("SELECT count(*) FROM replica")
        said.set()
        assert sum(one.result() for one in writers) * 20 == reserved, "nothing came after it"


def test_what_is_reserved_in_a_drained_store_is_abandoned_and_its_writer_plans_again(
    metadata: Metadata, ingester: Ingester, query: Query
) -> None:
    confirmed, waits = manifest("/a"), manifest("/b")
    kept, lost = ingester.reserve(facts(confirmed)), ingester.reserve(facts(waits))
    metadata.assets.record(confirmed, [kept], [])
    metadata.stores.abandon("main")
    assert ingester.garbage() == [], "the store takes what comes"
    metadata.stores.set_state(StoreState("main", "draining", "other"))
    metadata.stores.abandon("main")
    assert ingester.garbage() == [lost.key]
    with pytest.raises(Superseded):
        metadata.assets.record(waits, [lost], [])
    for reserve in (lambda: ingester.reserve(facts(waits)), lambda: metadata.blobs.renew(kept)):
        with pytest.raises(Superseded):
            reserve()
    assert query("SELECT count(*) FROM blob WHERE gc_after IS NULL") == [(1,)], "gc looks at the other one"
    metadata.stores.set_state(StoreState("main", "active", None))
    assert metadata.assets.record(waits, [ingester.reserve(facts(waits))], []).entry == 0


def test_a_dead_uploads_reservation_keeps_nobody_from_copying(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest("/a")
    ingester.ingest(made)
    [dead] = metadata.blobs.reserve([(facts(made), "other")], HOUR)
    there, healthy = metadata.repairs.ensure(made.sha256, "other", LEASE)
    assert (there, healthy) == (dead.replica, False)
    fresh = metadata.repairs.begin(there)
    metadata.repairs.done(fresh)
    assert {one.store for one in metadata.blobs.replicas(made.sha256)} == {"main", "other"}
    with pytest.raises(Superseded):
        metadata.assets.record(manifest("/b", b"", sha256=made.sha256, size=made.size), [dead.replica], [])


def test_a_store_that_takes_nothing_new_is_no_target(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest("/a")
    ingester.ingest(made)
    metadata.stores.set_state(StoreState("other", "read-only", None))
    with pytest.raises(StoreUnavailable):
        metadata.repairs.ensure(made.sha256, "other", LEASE)

    def again() -> object:
        return metadata.assets.record(
            manifest("/b", b"", sha256=made.sha256, size=made.size),
            [ingester.reserve(facts(made))],
            [],
            later=["other"],
        )

    with pytest.raises(Superseded):
        again()
    assert metadata.tiers.promote([made.sha256], "other", up_to=1 << 20, max_bytes=1 << 20).wanted == []
    metadata.stores.set_state(StoreState("other", "active", None))
    again()
    assert metadata.repairs.due(10, NO_TIME)[0].store == "other"
