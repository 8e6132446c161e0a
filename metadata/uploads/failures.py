"""Visible failures: kept until somebody retries or discards what failed. Originals that are lost are among them, for as
long as they are."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, and_, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import BadRequest
from core.model import Failure, FailureReason, Page, StagedEntry
from database.transactions import Database
from metadata import rows
from metadata.blobs import lost_originals
from metadata.schema import failure, upload
from metadata.uploads.uploads import HOST_LOST, upsert_announced

_UNKNOWN = FailureReason("internal", "no reason was kept")


class Failures:
    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, entry: StagedEntry) -> None:
        """The upload of a quarantined entry failed."""
        self._database.run(_put, [entry])

    def page(self, after: str | None, limit: int) -> Page[Failure]:
        """Newest first; the cost of a page does not grow with the table.

        Raises:
            BadRequest: `after` did not come from a page.
        """
        return self._database.read(_page, None if after is None else _parse_cursor(after), limit)

    def find(self, failure_id: UUID) -> Failure | None:
        return self._database.read(_find, failure_id)

    def look_again(self, asset_id: UUID) -> Failure | None:
        """The copies of a lost original are looked at as soon as a worker is free. None: it is not lost (any more)."""
        return self._database.run(_look_again, asset_id)

    def wish(self, failure_id: UUID, wish: str) -> Failure | None:
        """Write `retry` or `discard` on the row, for the host that holds the bytes. None: there is no such failure."""
        return self._database.run(_wish, failure_id, wish)

    def wishes(self, host_id: UUID) -> list[Failure]:
        """What this host is to carry out."""
        query = rows.failures().where(
            failure.c.host_id == host_id,
            failure.c.subject == "ingest",
            failure.c.kind != HOST_LOST.kind,
            failure.c.wish.is_not(None),
        )
        return self._database.read(lambda connection: [rows.to_failure(row) for row in connection.execute(query)])

    def remove(self, failure_id: UUID) -> None:
        """The wish was carried out. A discarded upload is forgotten with its failure."""
        self._database.run(_remove, [failure_id])

    def reconcile(self, host_id: UUID, quarantined: Sequence[StagedEntry]) -> None:
        """Make the rows of this host match its quarantine: a row for every file, and no row without one."""
        self._database.run(_reconcile, host_id, quarantined)


def _put(connection: Connection, entries: Sequence[StagedEntry]) -> None:
    """A host-lost row of the same upload gives way: now the reason is known. Anything else was put before."""
    if not entries:
        return
    upsert_announced(connection, entries)
    statement = insert(failure)
    names = ("host_id", "path_text", "kind", "detail", "wish")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[failure.c.id],
            set_={name: statement.excluded[name] for name in names},
            where=failure.c.kind == HOST_LOST.kind,
        ),
        [_row(entry) for entry in entries],
    )


def _row(entry: StagedEntry) -> dict[str, object]:
    reason = entry.attempts.failure or _UNKNOWN
    return {
        "id": entry.manifest.id,
        "subject": "ingest",
        "host_id": entry.manifest.host_id,
        "path_text": entry.manifest.path,
        "kind": reason.kind,
        "detail": reason.detail,
        "wish": None,
    }


def _page(connection: Connection, after: tuple[datetime, UUID] | None, limit: int) -> Page[Failure]:
    query = rows.failures().order_by(failure.c.failed_at.desc(), failure.c.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(tuple_(failure.c.failed_at, failure.c.id) < after)
    found = [rows.to_failure(row) for row in connection.execute(query)]
    # Not as one query: over a union PostgreSQL would sort both wholes.
    found += lost_originals.page(connection, after, limit + 1)
    found.sort(key=lambda one: (one.failed_at, one.id), reverse=True)
    items = found[:limit]
    return Page(items, _cursor(items[-1]) if len(found) > limit else None)


def _cursor(last: Failure) -> str:
    return base64.urlsafe_b64encode(f"{last.failed_at.isoformat()} {last.id}".encode()).decode().rstrip("=")


def _parse_cursor(text: str) -> tuple[datetime, UUID]:
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
        at, _, failure_id = plain.partition(" ")
        moment, parsed_id = datetime.fromisoformat(at), UUID(failure_id)
        in_utc = moment.astimezone(UTC)  # overflows where the driver would
    except (ValueError, OverflowError, binascii.Error):
        raise BadRequest("after: not the end of a page") from None
    if moment.tzinfo is None:
        raise BadRequest("after: not the end of a page")
    return in_utc, parsed_id


def _find(connection: Connection, failure_id: UUID) -> Failure | None:
    row = connection.execute(rows.failures().where(failure.c.id == failure_id)).one_or_none()
    return lost_originals.find(connection, failure_id) if row is None else rows.to_failure(row)


def _look_again(connection: Connection, asset_id: UUID) -> Failure | None:
    lost_originals.hurry(connection, asset_id)
    return lost_originals.find(connection, asset_id)


def _wish(connection: Connection, failure_id: UUID, wish: str) -> Failure | None:
    connection.execute(update(failure).where(failure.c.id == failure_id).values(wish=wish))
    return _find(connection, failure_id)


def _remove(connection: Connection, ids: Sequence[UUID]) -> None:
    removed = connection.execute(delete(failure).where(failure.c.id.in_(ids)).returning(failure.c.id, failure.c.wish))
    discarded = [row.id for row in removed if row.wish == "discard"]
    if discarded:
        connection.execute(delete(upload).where(upload.c.id.in_(discarded), upload.c.state == "announced"))


def _reconcile(connection: Connection, host_id: UUID, quarantined: Sequence[StagedEntry]) -> None:
    of_this_host = and_(failure.c.host_id == host_id, failure.c.subject == "ingest", failure.c.kind != HOST_LOST.kind)
    known = {row.id: row.wish for row in connection.execute(select(failure.c.id, failure.c.wish).where(of_this_host))}
    present = {entry.manifest.id: entry for entry in quarantined}
    _put(connection, [entry for upload_id, entry in present.items() if upload_id not in known])
    gone = [failure_id for failure_id in known if failure_id not in present]
    if not gone:
        return
    # Without a file and without a wish to retry it, nothing will ever come of the upload.
    lost = [failure_id for failure_id in gone if known[failure_id] != "retry"]
    connection.execute(delete(failure).where(failure.c.id.in_(gone)))
    connection.execute(delete(upload).where(upload.c.id.in_(lost), upload.c.state == "announced"))
