"""Assets: looked up by path and entry, recorded once, deleted for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import Superseded
from core.failpoints import failpoint
from core.model import Asset, Manifest, Recorded, Replica, WantedVariant
from database.deadline import deadline
from database.transactions import Database
from metadata import rows
from metadata.assets import record_asset
from metadata.assets.record_asset import Known
from metadata.blobs import blobs
from metadata.journal import outbox
from metadata.paths import AssetPath
from metadata.schema import asset, blob, path_counter, tombstone, upload

__all__ = ["HOLDERS", "Assets", "Deleted", "Holder", "Known"]

HOLDERS = 100
"""That a purge tells of: a placeholder picture may have a million."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A live asset that holds the same bytes as one that was deleted."""

    id: UUID
    path: str
    entry: int


@dataclass(frozen=True, slots=True)
class Deleted:
    asset_id: UUID
    still_held: Sequence[Holder] = ()
    """After a purge: at most `HOLDERS` of them."""
    more: bool = False
    """There are further ones."""


class Assets:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, asset_id: UUID) -> Known | None:
        """What is known of an asset id, live or dead."""
        return self._database.read(record_asset.find_known, asset_id)

    def find_soon(self, asset_id: UUID, seconds: float) -> Known | None:
        """`find` for those who would rather do without than wait."""
        with deadline(seconds):
            return self.find(asset_id)

    def record(
        self,
        manifest: Manifest,
        replicas: Sequence[Replica],
        wants: Sequence[WantedVariant],
        *,
        later: Sequence[str] = (),
        attempts: int = 1,
        lease: timedelta | None = None,
    ) -> Recorded:
        """The metadata transaction of an ingest; the objects of `replicas` are in their stores, and the stores named by
        `later` get theirs in the background. An asset id that is known,
        live or dead, makes it a replay that changes no asset. With `lease`, variants that are new are leased to the
        caller, and no other worker sees them due before it ends.

        Raises:
            Superseded: the reservation is gone, or one of the stores named by `later` takes nothing new any more;
                nothing was written.
        """
        try:
            recorded = self._database.run(record_asset.record, manifest, replicas, later, wants, attempts, lease)
        except Superseded:
            self._database.run(blobs.abandon, replicas)
            raise
        failpoint("record.after-commit", str(manifest.id))
        return recorded

    def replay(self, manifest: Manifest, *, attempts: int = 1) -> Recorded | None:
        """Record an upload whose asset id is known, live or dead, as another of that asset, which does not change.
        None: the id is not known, and nothing was written."""
        if self.find(manifest.asset_id) is None:
            return None  # the usual case costs one look and no lock
        return self._database.run(record_asset.replay, manifest, attempts)

    def newest(self, path: AssetPath) -> Asset | None:
        """The one accepted last, which need not have the highest entry."""
        found = rows.assets().where(asset.c.path_hash == path.hash)
        return self._one(found.order_by(asset.c.accepted_at.desc(), asset.c.id.desc()).limit(1))

    def entry(self, path: AssetPath, number: int) -> Asset | None:
        return self._one(rows.assets().where(asset.c.path_hash == path.hash, asset.c.entry == number))

    def by_id(self, asset_id: UUID) -> Asset | None:
        return self._one(rows.assets().where(asset.c.id == asset_id))

    def was(self, path: AssetPath, number: int) -> bool:
        """Whether this entry was ever given: entries are counted up and never given again."""
        query = select(path_counter.c.next).where(path_counter.c.path_hash == path.hash)
        given: int = self._database.read(lambda connection: connection.scalar(query)) or 0
        return number < given

    def delete(self, path: AssetPath, entry: int, *, grace: timedelta, purge: bool) -> Deleted | None:
        """Asset to tombstone; its blob is due for gc after `grace`, with `purge` at once. `purge` also takes the path
        out of everything that stays, of an asset that was deleted before, too. None: there is nothing to do (any
        more)."""
        deleted = self._database.run(_delete, path, entry, timedelta(0) if purge else grace, purge)
        failpoint("delete.after-commit")
        return deleted

    def _one(self, query: Select[Any]) -> Asset | None:
        def find(connection: Connection) -> Asset | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else rows.to_asset(row)

        return self._database.read(find)


def _delete(connection: Connection, path: AssetPath, entry: int, grace: timedelta, purge: bool) -> Deleted | None:
    at = (asset.c.path_hash == path.hash, asset.c.entry == entry)
    asset_id = connection.scalar(select(asset.c.id).where(*at))
    if asset_id is not None:
        record_asset.lock_asset(connection, asset_id)
        gone = connection.execute(delete(asset).where(asset.c.id == asset_id).returning(*asset.c)).one_or_none()
        if gone is not None:
            return _bury(connection, gone, grace, purge)
    return _purge_tombstone(connection, path, entry) if purge else None


def _bury(connection: Connection, gone: Row[Any], grace: timedelta, purge: bool) -> Deleted:
    connection.execute(
        insert(tombstone)
        .values(
            asset_id=gone.id,
            path_text=None if purge else gone.path_text,
            path_hash=None if purge else gone.path_hash,
            entry=gone.entry,
            fingerprint=gone.fingerprint,
            upload_id=gone.upload_id,
            blob=None if purge else gone.blob,
        )
        .add_cte(outbox.noted(asset_id=gone.id, path_hash=gone.path_hash if purge else None))
    )
    if purge:
        _forget_path(connection, gone.id)
    failpoint("delete.before-commit")
    _release(connection, gone.blob, grace)
    return _still_held(connection, gone.id, gone.blob) if purge else Deleted(gone.id)


def _purge_tombstone(connection: Connection, path: AssetPath, entry: int) -> Deleted | None:
    """The asset was deleted before, and only now is nothing of it to stay."""
    at = (tombstone.c.path_hash == path.hash, tombstone.c.entry == entry)
    asset_id = connection.scalar(select(tombstone.c.asset_id).where(*at))
    if asset_id is None:
        return None
    record_asset.lock_asset(connection, asset_id)  # or a replay that began before brings the path back
    found = connection.execute(
        select(tombstone.c.asset_id, tombstone.c.blob).where(*at, tombstone.c.asset_id == asset_id).with_for_update()
    ).one_or_none()
    if found is None:
        return None
    connection.execute(
        update(tombstone)
        .where(tombstone.c.asset_id == found.asset_id)
        .values(path_text=None, path_hash=None, blob=None)
        .add_cte(outbox.noted(asset_id=found.asset_id, path_hash=path.hash))
    )
    _forget_path(connection, found.asset_id)
    _release(connection, found.blob, timedelta(0))
    return _still_held(connection, found.asset_id, found.blob)


def _forget_path(connection: Connection, asset_id: UUID) -> None:
    connection.execute(update(upload).where(upload.c.asset_id == asset_id).values(path_text=None))


def _release(connection: Connection, sha256: bytes | None, grace: timedelta) -> None:
    """Make the bytes due for gc after `grace`; gc leaves them where another asset holds them."""
    connection.execute(update(blob).where(blob.c.sha256 == sha256).values(gc_after=func.now() + grace))


def _still_held(connection: Connection, asset_id: UUID, sha256: bytes | None) -> Deleted:
    held = select(asset.c.id, asset.c.path_text, asset.c.entry).where(asset.c.blob == sha256)
    found = [Holder(*row) for row in connection.execute(held.order_by(asset.c.id).limit(HOLDERS + 1))]
    return Deleted(asset_id, found[:HOLDERS], len(found) > HOLDERS)
