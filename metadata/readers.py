"""Who reads the queues: the last word of any reader of each, in PostgreSQL's time.

One row for each queue, however many read it, so that a look is one short statement. A host's sweep has its heartbeat.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection, Interval, Text, cast, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import insert

from core import clock, queues
from core.queues import Unread
from database.session import with_next
from database.transactions import Database
from metadata.schema import host, reader, worker

OFTEN_ENOUGH_SECONDS = 5
"""A word that young is left as it is: a hundred workers write one row, and each version of it has to be cleared up."""


class Readers:
    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, names: Collection[str], here: str | None = None, connections: int = 0) -> None:
        """Write down that a worker, or beat, reads these queues now; of a worker also on which host, and how many
        connections it may open at most."""
        self._database.write(_note, sorted(names), here, connections)  # in one order: no deadlocks

    def unread(self, here: UUID | None) -> list[Unread]:
        """Say which queues no process reads. `here`: the host whose own queue and sweep have to be there."""
        return self._database.read(_unread, here)


def _note(connection: Connection, names: list[str], here: str | None, connections: int) -> None:
    if here is not None:
        own = insert(worker).values(host=here, queues=",".join(names), connections=connections)
        said = {"connections": connections, "last_seen": func.now()}
        with_next(connection, own.on_conflict_do_update(index_elements=[worker.c.host, worker.c.queues], set_=said))
    statement = insert(reader).values([{"queue": name} for name in names])
    old = func.now() - cast(literal(f"{OFTEN_ENOUGH_SECONDS} seconds"), Interval)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[reader.c.queue], set_={"last_seen": func.now()}, where=reader.c.last_seen < old
        )
    )


def _unread(connection: Connection, here: UUID | None) -> list[Unread]:
    """Read all words in one statement: one moment, and the time of it."""
    sweeps = select(func.concat(queues.sweep_of(""), cast(host.c.id, Text)), host.c.last_seen)
    words = union_all(select(reader.c.queue, reader.c.last_seen), sweeps).subquery()
    rows = connection.execute(select(words, func.now())).all()
    now = rows[0][2] if rows else clock.now()  # of nothing every time is as good
    return queues.unread({name: at for name, at, _ in rows}, now, here)
