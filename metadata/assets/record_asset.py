"""The metadata transaction: everything an ingest writes, or nothing of it.

Order: the lock on the asset id (so that a replay and a delete see each other), is it known?, the blob and its replica
(from here on gc leaves them alone), the rows, and the counter of the path with the asset's own row last: all uploads to
one path meet there, and the transaction that has it has nothing left to do but COMMIT. A replay never reaches the
counter, so entries are gapless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Connection,
    LargeBinary,
    Uuid,
    bindparam,
    cast,
    delete,
    exists,
    func,
    select,
    union_all,
)
from sqlalchemy import true as sql_true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql import false as sql_false

from core import clock
from core.failpoints import failpoint
from core.model import Manifest, Recorded, Replica, WantedVariant
from database.session import with_next
from metadata import locking, times
from metadata.blobs import blobs, repairs
from metadata.journal import outbox
from metadata.paths import AssetPath
from metadata.schema import asset, failure, label, path_counter, tag, tombstone, upload
from metadata.variants import variant_requests


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an asset id. `path` is None once it was purged."""

    live: bool
    fingerprint: bytes
    path: str | None
    entry: int
    upload_id: UUID


def lock_asset(connection: Connection, asset_id: UUID) -> None:
    """Lock the asset id: until COMMIT no other transaction records or deletes this asset. Of an id of any version these
    64 bits are random."""
    key = int.from_bytes(asset_id.bytes[8:], "big", signed=True)
    with_next(connection, _LOCK_ASSET, {"key": key})


_LOCK_ASSET = select(func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger)))
_ASSET_ID = bindparam("asset_id", type_=Uuid)
_KNOWN = ("fingerprint", "path_text", "entry", "upload_id")
_FIND_KNOWN = union_all(
    select(sql_true().label("live"), *(asset.c[name] for name in _KNOWN)).where(asset.c.id == _ASSET_ID),
    select(sql_false().label("live"), *(tombstone.c[name] for name in _KNOWN)).where(tombstone.c.asset_id == _ASSET_ID),
)


def find_known(connection: Connection, asset_id: UUID) -> Known | None:
    row = connection.execute(_FIND_KNOWN, {"asset_id": asset_id}).one_or_none()
    return None if row is None else Known(*row)


_MET = _FIND_KNOWN.subquery("met")
_CONFIRM_NEW = blobs.CONFIRM.where(~exists(_FIND_KNOWN.subquery("before").select()))
_HOW_IT_STANDS = select(blobs.CONFIRMED.label("confirmed"), *_MET.c).select_from(
    select(sql_true()).subquery("always").outerjoin(_MET, sql_true())
)


def _confirm_new(connection: Connection, asset_id: UUID, replicas: Sequence[Replica]) -> tuple[Known | None, int]:
    """Return what is known of the asset, and how many of its replicas are confirmed; those of a new asset are confirmed
    here. All of it goes in one message, with the lock."""
    values = {"asset_id": asset_id, **blobs.asked(replicas)}
    with_next(connection, _CONFIRM_NEW, values)
    confirmed, live, *known = connection.execute(_HOW_IT_STANDS, values).one()
    return (None if live is None else Known(live, *known)), confirmed


def record(
    connection: Connection,
    manifest: Manifest,
    replicas: Sequence[Replica],
    later: Sequence[str],
    wants: Sequence[WantedVariant],
    attempts: int,
    lease: timedelta | None,
) -> Recorded:
    host_now = clock.now()
    lock_asset(connection, manifest.asset_id)
    locking.share_stores(connection, later)
    known, confirmed = _confirm_new(connection, manifest.asset_id, replicas)
    if known is not None:
        return _replayed(connection, manifest, known, attempts, host_now)
    blobs.require_all(confirmed, replicas)
    repairs.want(connection, [(manifest.sha256, name) for name in later])
    leased = variant_requests.link(connection, manifest.asset_id, manifest.sha256, wants, lease)
    _insert_details(connection, manifest)
    _settle_upload(connection, manifest, manifest.path, attempts, host_now)
    entry = _insert_asset(connection, manifest)
    failpoint("record.before-commit", str(manifest.id))
    return Recorded(entry, leased)


def replay(connection: Connection, manifest: Manifest, attempts: int) -> Recorded | None:
    """Do what `record` does for an asset id that is known, without bytes in any store. None: it is not known."""
    host_now = clock.now()
    lock_asset(connection, manifest.asset_id)
    known = find_known(connection, manifest.asset_id)
    return None if known is None else _replayed(connection, manifest, known, attempts, host_now)


def _replayed(connection: Connection, manifest: Manifest, known: Known, attempts: int, host_now: datetime) -> Recorded:
    conflict = known.fingerprint != manifest.fingerprint
    if not conflict:
        _settle_upload(connection, manifest, known.path, attempts, host_now)
    return Recorded(known.entry, replay=True, conflict=conflict)


_FORGIVEN = delete(failure).where(failure.c.id == bindparam("forgiven", type_=Uuid)).cte("forgiven")
_NEW_UPLOAD = insert(upload).values(recorded_at=func.now(), accepted_at=times.ACCEPTED_AT)
_SETTLE_UPLOAD = _NEW_UPLOAD.on_conflict_do_update(
    index_elements=[upload.c.id],
    set_={
        **{name: _NEW_UPLOAD.excluded[name] for name in ("state", "attempts", "path_text")},
        "recorded_at": func.coalesce(upload.c.recorded_at, func.now()),
    },
).add_cte(_FORGIVEN)


def _settle_upload(
    connection: Connection, manifest: Manifest, path: str | None, attempts: int, host_now: datetime
) -> None:
    """Record the upload, also where it was announced or feared lost before, and delete its failure, in one round
    trip."""
    values = {
        "forgiven": manifest.id,
        "id": manifest.id,
        "host_id": manifest.host_id,
        "asset_id": manifest.asset_id,
        "path_text": path,
        "state": "recorded",
        "attempts": attempts,
        **times.when(manifest.host_id, manifest.accepted_at, host_now),
    }
    with_next(connection, _SETTLE_UPLOAD, values)


def _insert_details(connection: Connection, manifest: Manifest) -> None:
    details = manifest.details
    if details.labels:
        found = [{"asset_id": manifest.asset_id, "key": key, "value": value} for key, value in details.labels.items()]
        with_next(connection, insert(label), found)
    if details.tags:
        distinct = dict.fromkeys(details.tags)
        with_next(connection, insert(tag), [{"asset_id": manifest.asset_id, "value": value} for value in distinct])


_PATH_HASH = bindparam("path_hash", type_=LargeBinary)
_COUNTED = (
    insert(path_counter)
    .values(path_hash=_PATH_HASH, next=1)
    .on_conflict_do_update(index_elements=[path_counter.c.path_hash], set_={"next": path_counter.c.next + 1})
    .returning((path_counter.c.next - 1).label("entry"))
    .cte("counted")
)
_GIVEN = [one for one in asset.c if one.name not in ("entry", "accepted_at", "created_at")]
_ACCEPTED_AT = select(upload.c.accepted_at).where(upload.c.id == bindparam("upload_id")).scalar_subquery()
_INSERT_ASSET = (
    insert(asset)
    .from_select(
        [*_GIVEN, asset.c.accepted_at, asset.c.entry],
        select(
            *(cast(bindparam(one.name, type_=one.type), one.type) for one in _GIVEN), _ACCEPTED_AT, _COUNTED.c.entry
        ),
    )
    .returning(asset.c.entry)
    .add_cte(outbox.noted(asset_id=bindparam("id", type_=Uuid)))
)


def _insert_asset(connection: Connection, manifest: Manifest) -> int:
    """Count up the counter of the path, insert the asset with the number it gives, and note the event, in one
    statement; return the number. The asset was accepted when its upload was, which is settled by now."""
    path = AssetPath.from_text(manifest.path)
    image = manifest.image
    values = {
        "id": manifest.asset_id,
        "path": path.ltree,
        "path_text": path.text,
        "path_hash": path.hash,
        "blob": manifest.sha256,
        "width": image.width,
        "height": image.height,
        "frames": image.frames,
        "orientation": image.orientation,
        "has_alpha": image.has_alpha,
        "alt": manifest.details.alt,
        "fingerprint": manifest.fingerprint,
        "upload_id": manifest.id,
        "accepted_by_host_at": manifest.accepted_at,
    }
    entry: int = connection.execute(_INSERT_ASSET, values).scalar_one()
    return entry
