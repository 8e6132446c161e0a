"""The metadata transaction: entries, replays, tombstones, and what it links."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection

from core.errors import Superseded
from core.model import Details, ImageFacts, Ingest, IngestState, Manifest
from metadata.assets import assets, record_asset
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, LEASE, NO_TIME, Ingester, facts, manifest, path, want


def test_what_is_recorded_is_found(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest(
        "/catalog/schöne schuhe/rot.png",
        image=ImageFacts("image/png", 640, 480, None, orientation=6, has_alpha=True),
        details=Details("ein Schuh", {"colour": "rot", "size": "44"}, ["shoe", "red", "shoe"]),
    )
    assert ingester.ingest(made).entry == 0
    asset = metadata.assets.newest(path(made.path))
    assert asset is not None
    assert asset == metadata.assets.entry(path(made.path), 0) == metadata.assets.by_id(made.asset_id)
    assert (asset.id, asset.path, asset.entry, asset.blob) == (made.asset_id, made.path, 0, facts(made))
    assert (asset.accepted_by_host_at, asset.image) == (made.accepted_at, made.image)
    assert asset.details == Details("ein Schuh", {"colour": "rot", "size": "44"}, ("red", "shoe"))
    assert metadata.assets.newest(path("/catalog")) is None
    assert metadata.assets.entry(path(made.path), 1) is None


def test_the_newest_is_the_one_accepted_last(metadata: Metadata, ingester: Ingester) -> None:
    now = datetime.now(UTC)
    late, early = manifest(accepted_at=now), manifest(accepted_at=now - timedelta(minutes=1))
    assert [ingester.ingest(made).entry for made in (late, early)] == [0, 1]
    newest = metadata.assets.newest(path("/a.png"))
    assert newest is not None
    assert newest.id == late.asset_id


def test_many_writers_and_replays_on_one_path(ingester: Ingester, query: Query) -> None:
    """32 at once, every upload several times: entries are unique and gapless."""
    uploads = [manifest("/hot.png") for _ in range(64)]
    start = threading.Barrier(32)

    def write(number: int) -> list[tuple[int, bool]]:
        start.wait(60)
        mine = [uploads[(number * 2 + step) % 64] for step in range(6)]
        return [(one.entry, one.replay) for one in map(ingester.ingest, mine) if one.entry is not None]

    with ThreadPoolExecutor(32) as pool:
        told = [one for result in pool.map(write, range(32)) for one in result]
    assert sorted(entry for entry, replay in told if not replay) == list(range(64))
    assert query("SELECT array_agg(entry ORDER BY entry) FROM asset") == [(list(range(64)),)]
    assert query("SELECT next FROM path_counter") == [(64,)]


def test_an_upload_met_again_changes_nothing(ingester: Ingester, metadata: Metadata, query: Query) -> None:
    first = manifest(keyed=True)
    ingester.ingest(first)
    again = replace(first, id=uuid4())
    recorded = ingester.ingest(again)
    assert (recorded.entry, recorded.replay, recorded.conflict) == (0, True, False)
    other = replace(first, id=uuid4(), fingerprint=b"other")
    recorded = ingester.ingest(other)
    assert (recorded.replay, recorded.conflict) == (True, True)
    assert query("SELECT count(*) FROM asset") == [(1,)]
    assert _ingest(metadata, again.id).state is IngestState.READY
    assert metadata.uploads.find(other.id, host_lost=HOUR) is None


def test_a_deleted_asset_does_not_come_back(ingester: Ingester, metadata: Metadata) -> None:
    made = manifest(details=Details("alt", {"k": "v"}, ["t"]))
    ingester.ingest(made, [want("thumb")])
    deleted = ingester.delete(made.path)
    assert deleted is not None
    assert (deleted.asset_id, list(deleted.still_held)) == (made.asset_id, [])
    assert ingester.delete(made.path) is None
    assert metadata.assets.newest(path(made.path)) is None
    known = metadata.assets.find(made.asset_id)
    assert known is not None
    assert (known.live, known.path, known.entry, known.fingerprint, known.upload_id) == (
        False, made.path, 0, made.fingerprint, made.id,
    )  # fmt: skip
    assert ingester.ingest(made).replay
    assert metadata.assets.by_id(made.asset_id) is None
    assert ingester.ingest(manifest()).entry == 1, "entry numbers are never used again"


def test_a_purge_takes_the_path_and_the_labels_and_tells_who_holds_the_bytes(
    ingester: Ingester, metadata: Metadata, query: Query
) -> None:
    made = manifest("/secret/name.png", b"body", details=Details("alt", {"k": "v"}, ["t"]))
    same = manifest("/other.png", b"body")
    ingester.ingest(made)
    ingester.ingest(same)
    deleted = ingester.delete(made.path, purge=True)
    assert deleted is not None
    assert [(one.id, one.path, one.entry) for one in deleted.still_held] == [(same.asset_id, "/other.png", 0)]
    assert ingester.ingest(made).replay, "a message that comes late"
    assert _ingest(metadata, made.id).path == ""
    assert query("SELECT count(*) FROM label") == query("SELECT count(*) FROM tag") == [(0,)]
    for table in ("asset", "tombstone", "upload", "failure"):
        assert query(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%secret%'") == [(0,)]


@pytest.mark.parametrize("others", [1, 2, 3])
def test_a_purge_tells_of_some_of_those_who_hold_the_bytes(
    ingester: Ingester, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(assets, "HOLDERS", 2)
    for number in range(others + 1):
        ingester.ingest(manifest(f"/{number}.png", b"body"))
    untold = ingester.delete("/0.png")
    assert untold is not None
    assert (list(untold.still_held), untold.more) == ([], False)
    told = ingester.delete("/0.png", purge=True)
    assert told is not None
    assert (len(told.still_held), told.more) == (min(others, 2), others > 2)


def test_a_purge_may_come_after_the_delete(ingester: Ingester, metadata: Metadata, query: Query) -> None:
    made, same = manifest("/secret/later.png", b"late"), manifest("/other.png", b"late")
    ingester.ingest(made)
    ingester.ingest(same)
    assert ingester.delete(made.path) is not None
    assert query("SELECT path_text FROM tombstone") == [("/secret/later.png",)]
    due = "SELECT gc_after <= now() FROM blob WHERE size = 4"
    assert query(due) == [(False,)]
    purged = ingester.delete(made.path, purge=True)
    assert purged is not None
    assert (purged.asset_id, [one.path for one in purged.still_held]) == (made.asset_id, ["/other.png"])
    assert query(due) == [(True,)]
    for table in ("tombstone", "upload"):
        assert query(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%secret%'") == [(0,)]
    assert ingester.delete(made.path, purge=True) is None
    assert ingester.ingest(made).replay, "it stays deleted"


def test_a_replay_that_began_before_a_purge_brings_no_path_back(
    ingester: Ingester, metadata: Metadata, query: Query
) -> None:
    made = manifest("/secret/again.png")
    ingester.ingest(made)
    ingester.delete(made.path)
    begun, over = threading.Event(), threading.Event()

    def replay_slowly(connection: Connection) -> None:
        assert record_asset.replay(connection, replace(made, id=uuid4()), 1) is not None
        begun.set()
        over.wait(30)

    with ThreadPoolExecutor(2) as pool:
        replayed = pool.submit(metadata.database.run, replay_slowly)
        assert begun.wait(30)
        purged = pool.submit(ingester.delete, made.path, purge=True)
        wait([purged], timeout=1)  # one that does not wait is done by then
        over.set()
        replayed.result()
        assert purged.result() is not None
    assert query("SELECT path_text FROM upload") == [(None,), (None,)]


def test_delete_and_replays_at_once(ingester: Ingester, metadata: Metadata) -> None:
    """Whoever comes first, once it is deleted it stays so."""
    for round_ in range(10):
        made = manifest(f"/race/{round_}.png")
        ingester.ingest(made)
        start = threading.Barrier(4)

        def replay(start: threading.Barrier = start, made: Manifest = made) -> None:
            start.wait(30)
            ingester.ingest(made)

        threads = [threading.Thread(target=replay) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait(30)
        assert ingester.delete(made.path) is not None
        for thread in threads:
            thread.join()
        assert metadata.assets.by_id(made.asset_id) is None
        known = metadata.assets.find(made.asset_id)
        assert known is not None
        assert not known.live


def test_superseded_writes_nothing_and_leaves_the_key_to_gc(ingester: Ingester, query: Query) -> None:
    made = manifest()
    replica = ingester.reserve(facts(made))
    assert ingester.metadata.blobs.give_up_pending(NO_TIME, 10) == 1
    ingester.metadata.blobs.forget([one.id for one in ingester.metadata.blobs.garbage(10)])
    with pytest.raises(Superseded):
        ingester.metadata.assets.record(made, [replica], [want("thumb")])
    for table in ("asset", "upload", "variant", "asset_variant", "path_counter"):
        assert query(f"SELECT count(*) FROM {table}") == [(0,)]
    assert ingester.garbage() == [replica.key], "it was put after gc had deleted the key"


def test_new_variants_are_leased_and_old_ones_linked(ingester: Ingester, metadata: Metadata) -> None:
    wants = [want("thumb", profile="thumb"), want("thumb", profile="also"), want("big", profile="big")]
    first = ingester.ingest(manifest("/a", b"same"), wants, LEASE)
    assert {(one.fence, one.attempts, one.unfinished) for one in first.leased} == {(1, 1, 1)}
    assert len(first.leased) == 2, "two profiles with one recipe are one variant"
    second = manifest("/b", b"same")
    again = ingester.ingest(second, [*wants, want("new", profile="new")], LEASE)
    assert [one.recipe for one in again.leased] == [{"name": "new"}]
    shown = metadata.variants.of_asset(second.asset_id)
    assert sorted(one.profile or "" for one in shown) == ["also", "big", "new", "thumb"]
    assert metadata.variants.lease(second.sha256, LEASE) == [], "all of them are leased"


def test_without_a_lease_variants_are_due_at_once(ingester: Ingester, metadata: Metadata) -> None:
    made = manifest()
    assert list(ingester.ingest(made, [want("thumb")]).leased) == []
    assert metadata.variants.due_sources(10) == [made.sha256]


def test_a_subtree_is_not_a_string_prefix(ingester: Ingester, query: Query) -> None:
    for text in ("/users/1", "/users/1/a", "/users/10", "/users/1-1"):
        ingester.ingest(manifest(text))
    under = query("SELECT path_text FROM asset WHERE path <@ %s::ltree ORDER BY 1", path("/users/1").ltree)
    assert under == [("/users/1",), ("/users/1/a",)]


def _ingest(metadata: Metadata, upload_id: UUID) -> Ingest:
    found = metadata.uploads.find(upload_id, host_lost=HOUR)
    assert found is not None
    return found
