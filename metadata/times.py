"""One time for all hosts: PostgreSQL's.

When a host says that it took something in, that is translated by the difference between the two clocks. A host's
difference stays as its heartbeat measured it while it is about right: so two entries of one host never change their
order, however long each measurement took on its way. It follows a clock that is set.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Uuid, and_, bindparam, case, func, select
from sqlalchemy.dialects.postgresql import insert

from metadata.schema import TIME, host

JITTER_SECONDS = 1.0
"""So much later than before a clock may seem, since a message takes its time. Seeming earlier is nearer the truth."""

_HOST_ID = bindparam("clock_of", type_=Uuid)
_HOST_NOW = bindparam("host_now", type_=TIME)
_HOST_AT = bindparam("by_host_at", type_=TIME)


def _steady(measured: Any, known: Any) -> Any:
    jitter = func.make_interval(0, 0, 0, 0, 0, 0, JITTER_SECONDS)
    return case((and_(measured >= known, measured <= known + jitter), known), else_=measured)


_MEASURED = func.now() - _HOST_NOW
_KNOWN = select(host.c.clock_offset).where(host.c.id == _HOST_ID).scalar_subquery()
ACCEPTED_AT = func.least(func.now(), _HOST_AT + _steady(_MEASURED, _KNOWN))
"""When an entry was accepted, as far as that can be told; its parameters are `when`."""


def when(host_id: UUID, by_host_at: datetime, host_now: datetime) -> dict[str, Any]:
    """`by_host_at`: what the host's clock said then; `host_now`: what it says as this transaction begins."""
    return {"clock_of": host_id, "by_host_at": by_host_at, "host_now": host_now}


_BEAT = insert(host).values(last_seen=func.now(), clock_offset=_MEASURED)
_HEARTBEAT = _BEAT.on_conflict_do_update(
    index_elements=[host.c.id],
    set_={
        "last_seen": _BEAT.excluded.last_seen,
        "connections": func.coalesce(_BEAT.excluded.connections, host.c.connections),
        "clock_offset": _steady(_BEAT.excluded.clock_offset, host.c.clock_offset),
        "told_until": func.coalesce(_BEAT.excluded.told_until, host.c.told_until),
    },
).returning(host.c.last_seen)


def beat(
    connection: Connection,
    host_id: UUID,
    host_now: datetime,
    connections: int | None = None,
    told_until: datetime | None = None,
) -> datetime:
    """Record that the host lives. Call it first in a transaction: `host_now` is compared with the transaction's
    beginning, which is returned."""
    said = {"id": host_id, "host_now": host_now, "connections": connections, "told_until": told_until}
    found: datetime = connection.execute(_HEARTBEAT, said).scalar_one()
    return found


def now(connection: Connection) -> datetime:
    found: datetime = connection.execute(select(func.now())).scalar_one()
    return found
