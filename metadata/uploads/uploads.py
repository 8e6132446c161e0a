"""Uploads as the fleet sees them: announced by the host that staged them, then recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, and_, delete, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert

from core import clock
from core.failpoints import failpoint
from core.model import FailureReason, Ingest, IngestState, StagedEntry, VariantState
from database.transactions import Database
from metadata import times
from metadata.schema import asset, failure, host, tombstone, upload
from metadata.variants.variants import of_asset

Fate = Literal["waits", "lost", "never was"]
"""waits: its host will tell; lost: the host is silent, and the upload with it; never was: the host lives, has told of
all that it had accepted until long after, and this is not among it (any more)."""

HOST_LOST = FailureReason("host-lost", "the host that holds these bytes has been silent for long; undone if it returns")


class Uploads:
    def __init__(self, database: Database) -> None:
        self._database = database

    def announce(
        self,
        host_id: UUID,
        entries: Sequence[StagedEntry],
        *,
        connections: int | None = None,
        told_until: datetime | None = None,
    ) -> datetime:
        """Announce that the host lives, and holds these. What is recorded stays so; what was feared lost with the host
        is not. Returns PostgreSQL's time of this word.

        `connections`: how many its processes may open to PostgreSQL; None: as it said before.
        `told_until`: the time of an earlier word, after which the host looked through all that it had accepted and told
        of it; None: as before. That a host lives does not say so: its first word comes before what it holds."""
        at = self._database.run(_announce, host_id, entries, connections, told_until)
        failpoint("announce.after-commit")
        return at

    def find(self, upload_id: UUID, *, host_lost: timedelta) -> Ingest | None:
        """Return what the database can say of an upload. None: it was never announced or recorded, or that is long
        ago."""
        return self._database.read(_find, upload_id, host_lost)

    def fate_on(self, host_id: UUID, accepted_at: datetime, *, host_lost: timedelta) -> Fate:
        """Return what can be said of an upload that no row tells of, and that this host accepted when its clock said
        so."""
        return self._database.read(_fate_on, host_id, accepted_at, host_lost)

    def mark_lost_hosts(self, host_lost: timedelta) -> int:
        """Turn announced uploads of hosts silent for so long into visible failures; return how many."""
        return self._database.run(_mark_lost_hosts, host_lost)


def upsert_announced(connection: Connection, entries: Sequence[StagedEntry]) -> None:
    if not entries:
        return
    statement = insert(upload)
    host_now = clock.now()
    connection.execute(
        statement.values(accepted_at=times.ACCEPTED_AT).on_conflict_do_update(
            index_elements=[upload.c.id],
            set_={"host_id": statement.excluded.host_id, "attempts": statement.excluded.attempts},
            where=upload.c.state == "announced",
        ),
        [
            {
                "id": entry.manifest.id,
                "host_id": entry.manifest.host_id,
                "asset_id": entry.manifest.asset_id,
                "path_text": entry.manifest.path,
                "state": "announced",
                "attempts": entry.attempts.total,
                **times.when(entry.manifest.host_id, entry.manifest.accepted_at, host_now),
            }
            for entry in sorted(entries, key=lambda entry: entry.manifest.id)  # in one order: no deadlocks
        ],
    )


def _announce(
    connection: Connection,
    host_id: UUID,
    entries: Sequence[StagedEntry],
    connections: int | None,
    told_until: datetime | None,
) -> datetime:
    at = times.beat(connection, host_id, clock.now(), connections, told_until)
    upsert_announced(connection, entries)
    connection.execute(
        delete(failure).where(
            failure.c.host_id == host_id, failure.c.subject == "ingest", failure.c.kind == HOST_LOST.kind
        )
    )
    return at


def _find(connection: Connection, upload_id: UUID, host_lost: timedelta) -> Ingest | None:
    """The row, what became of its asset, and whether its host lives: one statement, so one moment."""
    silent = and_(host.c.last_seen.is_not(None), host.c.last_seen < func.now() - host_lost)
    row = connection.execute(
        select(
            upload,
            func.coalesce(asset.c.entry, tombstone.c.entry).label("entry"),
            failure.c.kind,
            failure.c.detail,
            silent.label("silent"),
        )
        .outerjoin(asset, asset.c.id == upload.c.asset_id)
        .outerjoin(tombstone, tombstone.c.asset_id == upload.c.asset_id)
        .outerjoin(failure, and_(failure.c.id == upload.c.id, failure.c.subject == "ingest"))
        .outerjoin(host, host.c.id == upload.c.host_id)
        .where(upload.c.id == upload_id)
    ).one_or_none()
    if row is None:
        return None
    return _recorded(connection, row) if row.state == "recorded" else _announced(row)


def _fate_on(connection: Connection, host_id: UUID, accepted_at: datetime, host_lost: timedelta) -> Fate:
    """Judge by the last word of the host. A host that was never heard of may have died before its first word, or be an
    invention: both are silent. One that lives has to have told of all that it had accepted by a time that is long
    after: an id is made a moment before its upload is accepted."""
    query = select(host.c.last_seen < func.now() - host_lost, host.c.clock_offset, host.c.told_until)
    row = connection.execute(query.where(host.c.id == host_id)).one_or_none()
    silent, offset, told_until = (None, None, None) if row is None else row
    accepted_at += offset or timedelta(0)
    if silent or (silent is None and times.now(connection) - accepted_at > host_lost):
        return "lost"
    return "never was" if told_until is not None and told_until - accepted_at > host_lost else "waits"


def _announced(row: Any) -> Ingest:
    reason = None
    if row.kind is not None:
        reason = FailureReason(row.kind, row.detail)
    elif row.silent:
        reason = HOST_LOST
    return Ingest(
        id=row.id,
        asset_id=row.asset_id,
        state=IngestState.FAILED if reason else IngestState.STAGED,
        attempts=row.attempts,
        path=row.path_text or "",
        entry=None,
        accepted_at=row.accepted_at,
        failure=reason,
    )


def _recorded(connection: Connection, row: Any) -> Ingest:
    """Ready once every eager variant has ended. A purged upload has no path to link to, so no entry either."""
    variants = [one for one in of_asset(connection, row.asset_id) if one.eager]
    ended = all(one.state is not VariantState.PENDING for one in variants)
    return Ingest(
        id=row.id,
        asset_id=row.asset_id,
        state=IngestState.READY if ended else IngestState.STORED,
        attempts=row.attempts,
        path=row.path_text or "",
        entry=row.entry if row.path_text is not None else None,
        accepted_at=row.accepted_at,
        stored_at=row.recorded_at,
        variants=variants,
    )


def _mark_lost_hosts(connection: Connection, host_lost: timedelta) -> int:
    """A host without a heartbeat row is as lost as a silent one, once its uploads are as old."""
    since = func.now() - host_lost
    heard = exists().where(host.c.id == upload.c.host_id, host.c.last_seen >= since)
    lost = select(
        upload.c.id,
        literal("ingest"),
        upload.c.host_id,
        upload.c.path_text,
        literal(HOST_LOST.kind),
        literal(HOST_LOST.detail),
    ).where(
        upload.c.state == "announced",
        ~heard,
        or_(exists().where(host.c.id == upload.c.host_id), upload.c.accepted_at < since),
        ~exists().where(failure.c.id == upload.c.id),
    )
    columns = ["id", "subject", "host_id", "path_text", "kind", "detail"]
    statement = insert(failure).from_select(columns, lost).on_conflict_do_nothing()
    return connection.execute(statement).rowcount
