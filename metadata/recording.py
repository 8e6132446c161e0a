"""The metadata transaction: everything an ingest writes, or nothing of it.

Order: the lock on the asset id (so that a replay and a delete see each other), is it known?, the replica (from here on
gc leaves the blob alone), the rows, and the counter of the path with the asset's own row last: all uploads to one path
meet there, and whoever has it has nothing left to do but COMMIT. A replay never reaches the counter, so entries are
gapless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, delete, func, literal, null, select, union_all
from sqlalchemy import true as sql_true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql import false as sql_false

from core.failpoints import failpoint
from core.model import Manifest, Recorded, Replica, WantedVariant
from metadata import blobs, links
from metadata.paths import AssetPath
from metadata.schema import asset, failure, label, path_counter, tag, tombstone, upload


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an asset id. `path` is None once it was purged."""

    live: bool
    fingerprint: bytes
    path: str | None
    entry: int
    upload_id: UUID


def lock_asset(connection: Connection, asset_id: UUID) -> None:
    """Until COMMIT nobody else records or deletes this asset. Of an id of any version these 64 bits are random."""
    key = int.from_bytes(asset_id.bytes[8:], "big", signed=True)
    connection.execute(select(func.pg_advisory_xact_lock(key)))


def find_known(connection: Connection, asset_id: UUID) -> Known | None:
    row = connection.execute(
        union_all(
            select(sql_true(), asset.c.fingerprint, asset.c.path_text, asset.c.entry, asset.c.upload_id).where(
                asset.c.id == asset_id
            ),
            select(
                sql_false(), tombstone.c.fingerprint, tombstone.c.path_text, tombstone.c.entry, tombstone.c.upload_id
            ).where(tombstone.c.asset_id == asset_id),
        )
    ).one_or_none()
    return None if row is None else Known(*row)


def record(
    connection: Connection,
    manifest: Manifest,
    replica: Replica,
    wants: Sequence[WantedVariant],
    attempts: int,
    lease: timedelta | None,
) -> Recorded:
    lock_asset(connection, manifest.asset_id)
    known = find_known(connection, manifest.asset_id)
    if known is not None:
        conflict = known.fingerprint != manifest.fingerprint
        if not conflict:
            _settle_upload(connection, manifest, known.path, attempts)
        return Recorded(known.entry, replay=True, conflict=conflict)
    blobs.confirm(connection, [replica])
    leased = links.link(connection, manifest.asset_id, manifest.sha256, wants, lease)
    _insert_details(connection, manifest)
    _settle_upload(connection, manifest, manifest.path, attempts)
    entry = _insert_asset(connection, manifest)
    failpoint("record.before-commit", str(manifest.id))
    return Recorded(entry, leased)


def _settle_upload(connection: Connection, manifest: Manifest, path: str | None, attempts: int) -> None:
    """The upload is recorded, whatever was announced or feared of it before. Both in one round trip."""
    forgiven = delete(failure).where(failure.c.id == manifest.id).cte("forgiven")
    statement = insert(upload).values(
        id=manifest.id,
        host_id=manifest.host_id,
        asset_id=manifest.asset_id,
        path_text=path,
        state="recorded",
        attempts=attempts,
        accepted_at=manifest.accepted_at,
        recorded_at=func.now(),
    )
    changes = {"state": "recorded", "attempts": attempts, "path_text": path}
    statement = statement.on_conflict_do_update(
        index_elements=[upload.c.id],
        set_={**changes, "recorded_at": func.coalesce(upload.c.recorded_at, func.now())},
    )
    connection.execute(statement.add_cte(forgiven))


def _insert_details(connection: Connection, manifest: Manifest) -> None:
    details = manifest.details
    if details.labels:
        found = [{"asset_id": manifest.asset_id, "key": key, "value": value} for key, value in details.labels.items()]
        connection.execute(insert(label), found)
    if details.tags:
        distinct = dict.fromkeys(details.tags)
        connection.execute(insert(tag), [{"asset_id": manifest.asset_id, "value": value} for value in distinct])


def _insert_asset(connection: Connection, manifest: Manifest) -> int:
    """The counter of the path, and the asset with the number it gave, in one statement."""
    path = AssetPath.from_text(manifest.path)
    counted = (
        insert(path_counter)
        .values(path_hash=path.hash, next=1)
        .on_conflict_do_update(index_elements=[path_counter.c.path_hash], set_={"next": path_counter.c.next + 1})
        .returning((path_counter.c.next - 1).label("entry"))
        .cte("counted")
    )
    image = manifest.image
    values = {
        asset.c.id: manifest.asset_id,
        asset.c.path: path.ltree,
        asset.c.path_text: path.text,
        asset.c.path_hash: path.hash,
        asset.c.blob: manifest.sha256,
        asset.c.width: image.width,
        asset.c.height: image.height,
        asset.c.frames: image.frames,
        asset.c.orientation: image.orientation,
        asset.c.has_alpha: image.has_alpha,
        asset.c.alt: manifest.details.alt,
        asset.c.fingerprint: manifest.fingerprint,
        asset.c.upload_id: manifest.id,
        asset.c.accepted_at: manifest.accepted_at,
    }
    chosen = [null() if value is None else literal(value, column.type) for column, value in values.items()]
    statement = insert(asset).from_select([*values, asset.c.entry], select(*chosen, counted.c.entry))
    entry: int = connection.execute(statement.returning(asset.c.entry)).scalar_one()
    return entry
