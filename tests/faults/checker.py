"""The invariant checker: what clients were told, what the database says, what the store holds.

I1  every accepted upload is ready with equal bytes, or failed visibly where the test expects a failure
I2  nothing is left unfinished once the faults have stopped
I3  one asset for each idempotency key; one object for each blob and store; entries of a path are unique and gapless
I4  what is called healthy or ready is in the store, with its hash
I5  no object that nothing names, nothing left over in staging
I7  no answer took longer than it may (asserted where requests are made)
I8  no refused upload is visible
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import psycopg2.extras

from tests.faults.history import History, Told


@dataclass(frozen=True)
class World:
    """Everything that can be looked at, read once."""

    assets: Mapping[UUID, Mapping[str, Any]]
    tombstones: Mapping[UUID, Mapping[str, Any]]
    failures: Mapping[UUID, Mapping[str, Any]]
    replicas: list[Mapping[str, Any]]
    variants: list[Mapping[str, Any]]
    garbage: frozenset[str]
    counters: Mapping[bytes, int]
    objects: Mapping[str, Path]
    staged: Mapping[str, list[str]]

    @classmethod
    def look(cls, database_url: str, store_root: Path, staging: Path) -> World:
        connection = psycopg2.connect(database_url)
        try:
            with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                psycopg2.extras.register_uuid(conn_or_curs=cursor)

                def rows(query: str) -> list[Mapping[str, Any]]:
                    cursor.execute(query)
                    return list(cursor.fetchall())

                return cls(
                    assets={row["id"]: row for row in rows("SELECT * FROM asset")},
                    tombstones={row["asset_id"]: row for row in rows("SELECT * FROM tombstone")},
                    failures={row["id"]: row for row in rows("SELECT * FROM failure")},
                    replicas=rows("SELECT * FROM replica"),
                    variants=rows(
                        "SELECT v.*, count(av.asset_id) AS askers FROM variant v "
                        "LEFT JOIN asset_variant av ON av.variant_id = v.id GROUP BY v.id"
                    ),
                    garbage=frozenset(row["key"] for row in rows("SELECT key FROM garbage")),
                    counters={bytes(row["path_hash"]): row["next"] for row in rows("SELECT * FROM path_counter")},
                    objects={
                        path.name: path
                        for path in store_root.rglob("*")
                        if path.is_file()
                        and "." in path.name
                        and not path.name.startswith("catalog,")
                        and "tmp" not in path.relative_to(store_root).parts
                    },
                    staged={
                        name: sorted(path.name for path in (staging / name).iterdir())
                        for name in ("incoming", "accepted", "quarantine")
                    },
                )
        finally:
            connection.close()


def violations(world: World, history: History, *, expect_failed: Collection[UUID] = ()) -> list[str]:
    """Every broken invariant as a sentence; an empty list is the proof the tests ask for."""
    return [
        *_accepted(world, history, frozenset(expect_failed)),
        *_unfinished(world),
        *_unique(world, history),
        *_stored(world),
        *_left_over(world),
        *_refused(world, history),
    ]


def _accepted(world: World, history: History, expect_failed: frozenset[UUID]) -> list[str]:
    found = []
    for told in history.accepted:
        assert told.asset_id is not None
        asset = world.assets.get(told.asset_id)
        if told.deleted:
            if asset is not None:
                found.append(f"I1 {told.path}: it was deleted and came back")
        elif told.upload_id in expect_failed:
            if told.upload_id not in world.failures:
                found.append(f"I1 {told.path}: expected to fail visibly, and no failure names {told.upload_id}")
        elif asset is None:
            found.append(
                f"I1 {told.path}: accepted with {told.status} as {told.upload_id} and lost: {_where(world, told)}"
            )
        elif bytes(asset["blob"]).hex() != told.sha256:
            found.append(f"I1 {told.path}: recorded with other bytes")
    unexpected = [
        row for row in world.failures.values() if row["id"] not in expect_failed and row["subject"] == "ingest"
    ]
    found += [f"I1 unexpected failure {row['id']}: {row['kind']}: {row['detail']}" for row in unexpected]
    return found


def _where(world: World, told: Told) -> str:
    name = str(told.upload_id)
    places = [place for place, names in world.staged.items() if name in names]
    return ", ".join(places) or "nowhere"


def _unfinished(world: World) -> list[str]:
    found = [f"I2 still in staging: {names}" for place, names in world.staged.items() if place == "accepted" and names]
    found += [
        f"I2 replica {bytes(row['blob']).hex()[:12]} is {row['state']}"
        for row in world.replicas
        if row["state"] != "healthy"
    ]
    found += [
        f"I2 variant {row['id']} of {bytes(row['source']).hex()[:12]} is {row['state']}"
        for row in world.variants
        if row["state"] == "pending" and row["askers"]
    ]
    return found


def _unique(world: World, history: History) -> list[str]:
    found = []
    by_key: dict[str, set[UUID]] = {}
    for told in history.accepted:
        if told.key is not None and told.asset_id is not None:
            by_key.setdefault(told.key, set()).add(told.asset_id)
    found += [f"I3 key {key} has {len(ids)} assets" for key, ids in by_key.items() if len(ids) > 1]
    copies = Counter(name.split(".")[0] for name in world.objects if name not in world.garbage)
    named = Counter(bytes(row["blob"]).hex() for row in world.replicas)
    found += [
        f"I3 blob {name[:12]} has {count} objects" for name, count in copies.items() if count > max(named[name], 1)
    ]
    entries: dict[bytes, list[int]] = {}
    for row in [*world.assets.values(), *world.tombstones.values()]:
        if row["path_hash"] is not None:
            entries.setdefault(bytes(row["path_hash"]), []).append(row["entry"])
    for path_hash, numbers in entries.items():
        if sorted(numbers) != list(range(world.counters[path_hash])):
            found.append(f"I3 entries of a path are not gapless: {sorted(numbers)}")
    return found


def _stored(world: World) -> list[str]:
    found = []
    for row in world.replicas:
        key = f"{bytes(row['blob']).hex()}.{row['generation']}"
        path = world.objects.get(key)
        if path is None:
            found.append(f"I4 {key[:12]} is {row['state']} and not in the store")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != key.split(".")[0]:
            found.append(f"I4 {key[:12]} has other bytes in the store")
    healthy = {bytes(row["blob"]) for row in world.replicas if row["state"] == "healthy"}
    found += [
        f"I4 asset {row['id']} has no healthy replica"
        for row in world.assets.values()
        if bytes(row["blob"]) not in healthy
    ]
    found += [
        f"I4 variant {row['id']} is ready without bytes"
        for row in world.variants
        if row["state"] == "ready" and (row["blob"] is None or bytes(row["blob"]) not in healthy)
    ]
    return found


def _left_over(world: World) -> list[str]:
    named = {f"{bytes(row['blob']).hex()}.{row['generation']}" for row in world.replicas} | world.garbage
    found = [f"I5 object {name[:12]}… is named by no row" for name in world.objects if name not in named]
    found += [f"I5 left in incoming: {name}" for name in world.staged["incoming"]]
    known = {str(number) for number in world.failures}
    found += [f"I5 quarantined without a failure: {name}" for name in world.staged["quarantine"] if name not in known]
    return found


def _refused(world: World, history: History) -> list[str]:
    accepted_paths = {told.path for told in history.uploads if told.status is None or told.status in (201, 202)}
    visible = {row["path_text"] for row in world.assets.values()}
    return [
        f"I8 {told.path}: refused with {told.status} and visible"
        for told in history.refused
        if told.path in visible and told.path not in accepted_paths
    ]
