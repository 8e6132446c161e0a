from __future__ import annotations

import pytest

from core.errors import BadRequest
from core.model import FailureReason, IngestState
from core.sections import Retention
from metadata.facade import Metadata
from tests.metadata.conftest import Query
from tests.metadata.made import HOST, HOUR, LEASE, NO_TIME, Ingester, manifest, staged, want

REASON = FailureReason("bad-image", "truncated")


def test_a_failure_is_seen_where_the_upload_is_asked_for(metadata: Metadata) -> None:
    made = manifest()
    metadata.failures.put(staged(made, REASON))
    metadata.failures.put(staged(made, REASON))
    told = metadata.uploads.find(made.id, host_lost=HOUR)
    assert told is not None
    assert (told.state, told.failure, told.asset_id) == (IngestState.FAILED, REASON, made.asset_id)
    [failure] = metadata.failures.page(None, 10).items
    assert failure == metadata.failures.find(made.id)
    assert (failure.id, failure.subject, failure.host_id, failure.path, failure.reason, failure.wish) == (
        made.id, "ingest", HOST, "/a.png", REASON, None,
    )  # fmt: skip


def test_pages_are_whole_and_in_order_while_rows_come_and_go(metadata: Metadata, query: Query) -> None:
    for number in range(25):
        metadata.failures.put(staged(manifest(f"/{number}"), REASON))
    query("UPDATE failure SET failed_at = date_trunc('day', failed_at)")  # equal times: the id decides
    seen = []
    after = None
    while True:
        page = metadata.failures.page(after, 10)
        seen += [one.id for one in page.items]
        metadata.failures.put(staged(manifest("/new"), REASON))
        if page.after is None:
            break
        after = page.after
    assert len(seen) == len(set(seen)) == 25
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("after", ["", "x", "é", "AAAA", "MjAyNi0wMS0wMSB4"])
def test_a_cursor_of_ones_own_making_is_refused(metadata: Metadata, after: str) -> None:
    with pytest.raises(BadRequest):
        metadata.failures.page(after, 10)


def test_wishes_go_to_the_host_that_holds_the_bytes(metadata: Metadata, query: Query) -> None:
    retried, discarded, other = (manifest(f"/{number}") for number in range(3))
    for made in (retried, discarded, other):
        metadata.failures.put(staged(made, REASON))
    assert metadata.failures.wish(manifest().id, "retry") is None
    wished = metadata.failures.wish(retried.id, "retry")
    assert wished is not None
    assert wished.wish == "retry"
    metadata.failures.wish(discarded.id, "discard")
    assert {(one.id, one.wish) for one in metadata.failures.wishes(HOST)} == {
        (retried.id, "retry"), (discarded.id, "discard"),
    }  # fmt: skip
    metadata.failures.remove(retried.id)
    metadata.failures.remove(discarded.id)
    told = metadata.uploads.find(retried.id, host_lost=HOUR)
    assert metadata.uploads.find(discarded.id, host_lost=HOUR) is None
    assert told is None or told.state is IngestState.STAGED
    assert [one.id for one in metadata.failures.page(None, 10).items] == [other.id]


def test_rows_and_quarantine_are_made_to_match(metadata: Metadata, ingester: Ingester) -> None:
    without_row, without_file, both = (staged(manifest(f"/{number}"), REASON) for number in range(3))
    metadata.failures.put(without_file)
    metadata.failures.put(both)
    [broken] = ingester.ingest(manifest("/x"), [want("thumb")], LEASE).leased
    metadata.variants.failed([broken], REASON, final=True, delay=NO_TIME)
    metadata.failures.reconcile(HOST, [without_row, both])
    expected = {without_row.manifest.id, both.manifest.id, broken.id}
    assert {one.id for one in metadata.failures.page(None, 10).items} == expected
    assert metadata.uploads.find(without_file.manifest.id, host_lost=HOUR) is None


def test_a_known_reason_takes_the_place_of_a_feared_one(metadata: Metadata) -> None:
    made = manifest()
    metadata.uploads.announce(HOST, [staged(made)])
    metadata.uploads.mark_lost_hosts(NO_TIME)
    metadata.failures.put(staged(made, REASON))
    assert [one.reason for one in metadata.failures.page(None, 10).items] == [REASON]


def test_retention(metadata: Metadata, ingester: Ingester, query: Query) -> None:
    ingester.ingest(manifest("/kept"))
    deleted = manifest("/deleted")
    ingester.ingest(deleted)
    ingester.delete("/deleted")
    failed = manifest("/failed")
    metadata.failures.put(staged(failed, REASON))
    lost = manifest("/lost")
    metadata.uploads.announce(HOST, [staged(lost)])
    query("UPDATE host SET last_seen = now() - interval '91 days'")
    metadata.uploads.mark_lost_hosts(HOUR)
    assert metadata.retention.prune(Retention()) == 0
    query("UPDATE upload SET recorded_at = recorded_at - interval '31 days'")
    query("UPDATE tombstone SET deleted_at = deleted_at - interval '366 days'")
    query("UPDATE failure SET failed_at = failed_at - interval '91 days'")
    assert metadata.retention.prune(Retention()) == 5, "two ingests, a tombstone, a lost upload and its failure"
    assert metadata.retention.prune(Retention()) == 0
    assert [(one.id, one.wish) for one in metadata.failures.wishes(HOST)] == [(failed.id, "discard")]
    assert metadata.assets.find(deleted.asset_id) is None
    assert query("SELECT count(*) FROM asset") == [(1,)]
    assert query("SELECT path_text FROM upload") == [("/failed",)]
