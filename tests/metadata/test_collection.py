"""In against out: a blob that anything refers to stays, and whoever comes late begins again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection

from core.errors import NotFound, Superseded
from metadata.blobs import blobs, collection
from metadata.facade import Metadata
from metadata.variants import variant_requests
from metadata.variants.variants import Stored
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, KEEPING, LEASE, NO_TIME, Ingester, facts, manifest, output, path, want


def test_equal_bytes_are_reserved_once_and_healthy_once_recorded(metadata: Metadata, ingester: Ingester) -> None:
    one, other = manifest("/a", b"same"), manifest("/b", b"same")
    [first] = metadata.blobs.reserve([(facts(one), "main")], HOUR)
    [second] = metadata.blobs.reserve([(facts(other), "main")], HOUR)
    assert first == second
    assert not first.healthy
    metadata.assets.record(one, [first.replica], [])
    [third] = metadata.blobs.reserve([(facts(other), "main")], HOUR)
    assert (third.replica, third.healthy) == (first.replica, True)
    [elsewhere] = metadata.blobs.reserve([(facts(other), "backup")], HOUR)
    assert elsewhere.replica.generation != first.replica.generation
    assert metadata.blobs.replicas(one.sha256) == [first.replica]


def test_reservations_come_back_in_the_order_of_asking(metadata: Metadata) -> None:
    wanted = [output(str(number)) for number in range(20)]
    reserved = metadata.blobs.reserve([(one, "main") for one in wanted], HOUR)
    assert [one.replica.blob for one in reserved] == wanted
    assert metadata.blobs.reserve([], HOUR) == []


def test_renewing_takes_a_new_key_and_leaves_the_old_one_to_gc(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    ingester.ingest(made)
    [lost] = metadata.blobs.replicas(made.sha256)
    with ThreadPoolExecutor(2) as pool:
        renewed, same = pool.map(metadata.blobs.renew, [lost, lost])
    assert renewed == same
    assert renewed.replica.generation > lost.generation
    assert not renewed.healthy
    assert ingester.garbage() == [lost.key]
    assert metadata.blobs.replicas(made.sha256) == []


def test_a_deleted_assets_bytes_go_with_those_of_its_variants(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    recorded = ingester.ingest(made, [want("thumb"), want("big")], LEASE)
    assert ingester.finish(recorded) == 2
    ingester.delete(made.path, grace=HOUR)
    assert metadata.blobs.collect(10, KEEPING) == 0, "the grace time"
    ingester.ingest(manifest("/b"))
    ingester.delete("/b", purge=True)
    assert metadata.blobs.collect(10, KEEPING) == 1
    ingester.metadata.database.run(_due_now)
    assert metadata.blobs.collect(10, KEEPING) == 3
    assert len(ingester.garbage()) == 4
    metadata.blobs.forget([one.id for one in metadata.blobs.garbage(10)])
    assert ingester.garbage() == []
    assert metadata.blobs.replicas(made.sha256) == []


def _due_now(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE blob SET gc_after = now() WHERE gc_after IS NOT NULL")


def test_bytes_that_another_asset_holds_stay(metadata: Metadata, ingester: Ingester, query: Query) -> None:
    kept = manifest("/kept", b"same")
    first = ingester.ingest(manifest("/gone", b"same"), [want("only-here"), want("both")], LEASE)
    ingester.finish(first)
    ingester.ingest(kept, [want("both")], LEASE)
    ingester.delete("/gone", purge=True)
    assert metadata.blobs.collect(10, KEEPING) == 1, "the output of the variant that nobody asks for any more"
    assert [one.recipe for one in metadata.variants.of_asset(kept.asset_id)] == [{"name": "both"}]
    assert len(metadata.blobs.replicas(kept.sha256)) == 1
    assert query("SELECT count(*) FROM blob WHERE gc_after IS NOT NULL") == [(0,)]


def test_an_original_that_is_also_a_variant_stays_for_either(metadata: Metadata, ingester: Ingester) -> None:
    source = manifest("/source")
    recorded = ingester.ingest(source, [want("thumb")], LEASE)
    thumb = manifest("/thumb", b"rendered")
    metadata.variants.finish([Stored(recorded.leased[0], [ingester.reserve(facts(thumb))])])
    ingester.ingest(thumb)
    ingester.delete("/thumb", purge=True)
    assert metadata.blobs.collect(10, KEEPING) == 0
    assert len(metadata.blobs.replicas(thumb.sha256)) == 1
    ingester.delete("/source", purge=True)
    assert metadata.blobs.collect(10, KEEPING) == 2


def test_a_reservation_spares_a_blob_that_is_due(metadata: Metadata, ingester: Ingester) -> None:
    ingester.ingest(manifest("/a", b"same"))
    ingester.delete("/a", purge=True)
    again = manifest("/a", b"same")
    replica = ingester.reserve(facts(again))
    assert metadata.blobs.collect(10, KEEPING) == 0
    assert metadata.assets.record(again, [replica], []).entry == 1


def test_whoever_comes_after_gc_begins_again(metadata: Metadata, ingester: Ingester) -> None:
    """Reserved, then so slow that the grace time passed."""
    ingester.ingest(manifest("/a", b"same"))
    ingester.delete("/a", purge=True)
    again = manifest("/a", b"same")
    [slow] = metadata.blobs.reserve([(facts(again), "main")], NO_TIME)
    assert slow.healthy
    assert metadata.blobs.collect(10, KEEPING) == 1
    with pytest.raises(Superseded):
        metadata.assets.record(again, [slow.replica], [])
    fresh = ingester.reserve(facts(again))
    assert fresh.key != slow.replica.key
    assert metadata.assets.record(again, [fresh], []).entry == 1
    assert set(ingester.garbage()) == {slow.replica.key}


class _Pause:
    """Stops whoever calls the wrapped function, after it, until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        original: Callable[..., Any] = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.reached.set()
            assert self.go_on.wait(30)
            return result

        monkeypatch.setattr(module, name, wrapped)


def test_gc_passes_by_a_record_that_is_not_committed(
    metadata: Metadata, ingester: Ingester, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingester.ingest(manifest("/a", b"same"))
    ingester.delete("/a", purge=True)
    again = manifest("/a", b"same")
    [slow] = metadata.blobs.reserve([(facts(again), "main")], NO_TIME)
    pause = _Pause(monkeypatch, blobs, "require_all")
    with ThreadPoolExecutor(1) as pool:
        recording_now = pool.submit(metadata.assets.record, again, [slow.replica], [])
        assert pause.reached.wait(30)
        assert metadata.blobs.collect(10, KEEPING) == 0
        pause.go_on.set()
        assert recording_now.result().entry == 1
    assert metadata.blobs.collect(10, KEEPING) == 0
    assert metadata.blobs.replicas(again.sha256) == [slow.replica]


def test_a_record_waits_for_a_gc_that_is_not_committed_and_then_begins_again(
    metadata: Metadata, ingester: Ingester, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingester.ingest(manifest("/a", b"same"))
    ingester.delete("/a", purge=True)
    again = manifest("/a", b"same")
    [slow] = metadata.blobs.reserve([(facts(again), "main")], NO_TIME)
    pause = _Pause(monkeypatch, collection, "discard_replicas")
    with ThreadPoolExecutor(3) as pool:
        collecting = pool.submit(metadata.blobs.collect, 10, KEEPING)
        assert pause.reached.wait(30)
        recording_now = pool.submit(metadata.assets.record, again, [slow.replica], [])
        reserving = pool.submit(ingester.reserve, facts(again))
        assert not recording_now.done()
        pause.go_on.set()
        assert collecting.result() == 1
        with pytest.raises(Superseded):
            recording_now.result()
        assert metadata.assets.record(again, [reserving.result()], []).entry == 1
    assert metadata.blobs.replicas(again.sha256) == [reserving.result()]


def test_asking_for_a_variant_while_gc_drops_it(
    metadata: Metadata, ingester: Ingester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The asker of a live asset gets a variant that stays."""
    kept = manifest("/kept", b"same")
    ingester.ingest(manifest("/gone", b"same"), [want("thumb")])
    ingester.ingest(kept)
    ingester.delete("/gone", purge=True)
    pause = _Pause(monkeypatch, collection, "_drop_unwanted_variants")
    with ThreadPoolExecutor(2) as pool:
        collecting = pool.submit(metadata.blobs.collect, 10, KEEPING)
        assert pause.reached.wait(30)
        asking = pool.submit(metadata.variants.want, kept.asset_id, kept.sha256, want("thumb"))
        pause.go_on.set()
        assert collecting.result() == 0
        assert asking.result().id == metadata.variants.of_asset(kept.asset_id)[0].id
    with pytest.raises(NotFound):
        metadata.variants.want(manifest().asset_id, kept.sha256, want("thumb"))


def test_gc_passes_by_a_blob_for_which_somebody_asks_for_a_variant(
    metadata: Metadata, ingester: Ingester, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = manifest("/kept", b"same")
    ingester.ingest(manifest("/gone", b"same"), [want("thumb")])
    ingester.ingest(kept)
    ingester.delete("/gone", purge=True)
    pause = _Pause(monkeypatch, variant_requests, "link")
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(metadata.variants.want, kept.asset_id, kept.sha256, want("thumb"))
        assert pause.reached.wait(30)
        collecting = pool.submit(metadata.blobs.collect, 10, KEEPING)
        try:
            assert collecting.result(20) == 0
        finally:
            pause.go_on.set()
        asked = asking.result()
    assert metadata.blobs.collect(10, KEEPING) == 0
    assert metadata.variants.of_asset(kept.asset_id) == [asked]


def test_everything_at_once_leaves_no_dangling_reference(metadata: Metadata, ingester: Ingester, query: Query) -> None:
    """Few bodies, many paths, ingests, deletes and gc in a crowd; no call deadlocks or fails otherwise."""

    def ingest(number: int) -> None:
        for step in range(15):
            made = manifest(f"/{number}", f"body {(number + step) % 4}".encode())
            for _ in range(20):
                try:
                    [reserved] = metadata.blobs.reserve([(facts(made), "main")], NO_TIME)
                    recorded = metadata.assets.record(made, [reserved.replica], [want("a"), want("b")], lease=LEASE)
                    done = [Stored(one, [ingester.reserve(output(str(step % 3)))]) for one in recorded.leased]
                    metadata.variants.finish(done)
                    break
                except Superseded:
                    continue
            if step % 2:
                metadata.assets.delete(path(made.path), step, grace=NO_TIME, purge=step % 3 == 0)

    def collect(_number: int) -> None:
        for _ in range(30):
            metadata.blobs.collect(5, KEEPING)
            metadata.blobs.give_up_pending(HOUR, 5)

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(ingest, number) for number in range(6)] + [pool.submit(collect, n) for n in range(2)]
        for result in results:
            result.result()
    healthy = "SELECT blob FROM replica WHERE state = 'healthy'"
    assert query(f"SELECT count(*) FROM asset WHERE blob NOT IN ({healthy})") == [(0,)]
    assert query(f"SELECT count(*) FROM variant WHERE state = 'ready' AND blob NOT IN ({healthy})") == [(0,)]
    named = "SELECT encode(blob, 'hex') || '.' || generation FROM replica"
    assert query(f"SELECT count(*) FROM garbage WHERE key IN ({named})") == [(0,)]
