"""The cost of the frequent queries does not grow with the tables: PostgreSQL plans them over an index."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event

from metadata.catalogue import Metadata
from metadata.demotion import Filter
from tests.metadata.conftest import Query
from tests.metadata.made import HOUR, LEASE, Ingester, everything, manifest, path, want

OLD = Filter(None, None, "*", datetime.now(UTC), datetime.now(UTC))

MANY = """
    INSERT INTO blob (sha256, size, media_type, gc_after)
        SELECT sha256(n::text::bytea), 1, 'image/png', CASE WHEN n % 100 = 0 THEN now() END
        FROM generate_series(1, 5000) n;
    INSERT INTO replica (blob, store, generation, state)
        SELECT sha256, 'main', 1, CASE WHEN gc_after IS NULL THEN 'healthy' ELSE 'pending' END FROM blob;
    INSERT INTO verify_event (blob, store, generation, result) SELECT sha256, 'main', 1, 'missing' FROM blob;
    INSERT INTO asset (id, path, path_text, path_hash, entry, blob, width, height, orientation, has_alpha, fingerprint,
                       upload_id, accepted_at, accepted_by_host_at)
        SELECT gen_random_uuid(), 'a'::ltree, '/a', sha256((n / 10)::text::bytea), n, sha256(n::text::bytea), 1, 1, 1,
               false, '', gen_random_uuid(), now(), now() FROM generate_series(1, 5000) n;
    INSERT INTO variant (id, source, recipe_hash, recipe, state, attempts, unfinished, fence, blob)
        SELECT gen_random_uuid(), sha256(n::text::bytea), 'x', '{}', CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'ready'
               END, 0, 0, 0, CASE WHEN n % 100 <> 0 THEN sha256(n::text::bytea) END FROM generate_series(1, 5000) n;
    INSERT INTO asset_variant SELECT a.id, v.id, '', true FROM asset a JOIN variant v ON v.source = a.blob;
    INSERT INTO upload (id, host_id, asset_id, state, attempts, accepted_at)
        SELECT upload_id, gen_random_uuid(), id, 'recorded', 1, now() FROM asset;
    INSERT INTO failure (id, subject, kind, detail, failed_at)
        SELECT gen_random_uuid(), 'ingest', 'x', 'x', now() - n * interval '1 s' FROM generate_series(1, 5000) n;
    ANALYZE;
"""


@pytest.fixture
def scans(metadata: Metadata, query: Query) -> list[str]:
    """Grows by every table that a statement of the test reads as a whole."""
    query(MANY)
    found: list[str] = []

    def explain(connection: Connection, cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            held, cursor.connection.holding = cursor.connection.holding, False
            cursor.execute("EXPLAIN (FORMAT JSON) " + statement, values)
            [[[plan]]] = cursor.fetchall()
            cursor.connection.holding = held
            _collect(plan["Plan"], found)

    own = metadata.database._ensure_own()
    event.listen(own.engine, "before_cursor_execute", explain)
    return found


def _collect(plan: dict[str, Any], found: list[str]) -> None:
    if plan["Node Type"] == "Seq Scan":
        found.append(plan["Relation Name"])
    for inner in plan.get("Plans", []):
        _collect(inner, found)


def test_no_frequent_query_reads_a_whole_table(metadata: Metadata, scans: list[str], query: Query) -> None:
    [[asset_id, upload_id, blob]] = query("SELECT id, upload_id, blob FROM asset LIMIT 1")
    calls: dict[str, Callable[[], object]] = {
        "newest": lambda: metadata.assets.newest(path("/a")),
        "entry": lambda: metadata.assets.entry(path("/a"), 3),
        "known": lambda: metadata.assets.find(asset_id),
        "of asset": lambda: metadata.variants.of_asset(asset_id),
        "variant": lambda: metadata.variants.find(asset_id, b"x"),
        "due": lambda: metadata.variants.due_sources(10),
        "lease": lambda: metadata.variants.lease(bytes(blob), LEASE),
        "replicas": lambda: metadata.blobs.replicas(bytes(blob)),
        "upload": lambda: metadata.uploads.find(upload_id, host_lost=HOUR),
        "page": lambda: metadata.failures.page(None, 10),
        "pending": lambda: metadata.blobs.give_up_pending(HOUR, 10),
        "last read": lambda: metadata.tiers.read([bytes(blob)], HOUR),
        "promote": lambda: metadata.tiers.promote([bytes(blob)], "hot", up_to=10, max_bytes=10),
        "evict": lambda: metadata.tiers.evict("hot", 0),
        "collect": lambda: metadata.blobs.collect(5, everything),
        "record": lambda: Ingester(metadata).ingest(manifest(), [want("a")], LEASE),
        "delete": lambda: Ingester(metadata).delete("/a.png"),
        "stretch": lambda: metadata.demotion.stretch("main", b"\x40", 100),
        "homes": lambda: metadata.demotion.homes("main", b"\x40", b"\x42", [OLD]),
        "leave to gc": lambda: metadata.demotion.leave_to_gc("main", b"\x40", b"\x42"),
    }
    read = {}
    for name, call in calls.items():
        scans.clear()
        call()
        # `host`, `store` and `garbage` are tiny or empty here: a scan is the right plan.
        read[name] = set(scans) - {"host", "store", "garbage", "promoted_bytes", "label", "tag", "tombstone"}
    assert {name: tables for name, tables in read.items() if tables} == {}
