from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from core.model import FailureReason, Ingest, IngestState
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOST, HOUR, LEASE, NO_TIME, Ingester, manifest, staged, want


def _find(metadata: Metadata, upload_id: UUID, host_lost: timedelta = HOUR) -> Ingest:
    found = metadata.uploads.find(upload_id, host_lost=host_lost)
    assert found is not None
    return found


def test_from_announced_to_ready(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest("/a/b.png")
    assert metadata.uploads.find(made.id, host_lost=HOUR) is None
    metadata.uploads.announce(HOST, [staged(made)])
    told = _find(metadata, made.id)
    assert (told.state, told.path, told.asset_id, told.attempts) == (IngestState.STAGED, "/a/b.png", made.asset_id, 1)
    recorded = ingester.ingest(made, [want("eager"), want("lazy", eager=False)], LEASE)
    told = _find(metadata, made.id)
    assert (told.state, told.entry, len(told.variants)) == (IngestState.STORED, 0, 1)
    assert told.stored_at is not None
    [eager] = [one for one in recorded.leased if one.recipe["name"] == "eager"]
    metadata.variants.failed([eager], FailureReason("bad-image", "x"), final=True, delay=NO_TIME)
    told = _find(metadata, made.id)
    assert told.state is IngestState.READY, "a failed variant has ended too, and is listed"
    assert told.variants[0].failure is not None
    metadata.uploads.announce(HOST, [staged(made)])
    assert _find(metadata, made.id).state is IngestState.READY, "an announcement that comes late"


def test_a_lost_host_and_its_return(metadata: Metadata, ingester: Ingester, query: Query) -> None:
    made, done = manifest("/a"), manifest("/b")
    metadata.uploads.announce(HOST, [staged(made), staged(done)])
    ingester.ingest(done)
    assert metadata.uploads.mark_lost_hosts(HOUR) == 0
    query("UPDATE host SET last_seen = now() - interval '2 hours'")
    told = _find(metadata, made.id)
    assert told.failure is not None
    assert (told.state, told.failure.kind) == (IngestState.FAILED, "host-lost")
    assert metadata.uploads.mark_lost_hosts(HOUR) == 1
    assert metadata.uploads.mark_lost_hosts(HOUR) == 0
    [failure] = metadata.failures.page(None, 10).items
    assert (failure.id, failure.host_id, failure.path, failure.reason.kind) == (made.id, HOST, "/a", "host-lost")
    metadata.failures.reconcile(HOST, [])
    assert metadata.failures.find(made.id) is not None, "that no file is in quarantine says nothing of it"
    metadata.uploads.announce(uuid4(), [])
    assert metadata.failures.find(made.id) is not None, "another host"
    metadata.uploads.announce(HOST, [])
    assert metadata.failures.find(made.id) is None
    assert _find(metadata, made.id).state is IngestState.STAGED


def test_recording_undoes_the_fear(metadata: Metadata, ingester: Ingester) -> None:
    made = manifest()
    metadata.uploads.announce(HOST, [staged(made)])
    assert metadata.uploads.mark_lost_hosts(NO_TIME) == 1
    ingester.ingest(made)
    assert metadata.failures.page(None, 10).items == []
    assert _find(metadata, made.id, NO_TIME).state is IngestState.READY


def test_a_thousand_entries_in_one_batch(metadata: Metadata, query: Query) -> None:
    entries = [staged(manifest(f"/{number}")) for number in range(1000)]
    metadata.uploads.announce(HOST, entries)
    metadata.uploads.announce(HOST, entries)
    assert query("SELECT count(*) FROM upload WHERE state = 'announced'") == [(1000,)]


def test_a_host_that_fell_silent_before_its_clock_was_measured_is_lost(metadata: Metadata, query: Query) -> None:
    metadata.uploads.announce(HOST, [])
    query("UPDATE host SET clock_offset = NULL, last_seen = now() - interval '2 hours' RETURNING 1")
    assert metadata.uploads.fate_on(HOST, datetime.now(UTC), host_lost=HOUR) == "lost"
