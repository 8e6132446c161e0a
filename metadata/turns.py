"""Whose turn it is at work that one of many is enough for: a lease on a name, by PostgreSQL's clock.

Unlike a lock of `coordination/` it is there whenever the work itself can be done. Nothing rests on it: a holder that
sleeps through its end and its successor may do the same work twice.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, delete, func, update
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid4

from database.transactions import Database
from metadata.schema import turn


class Turns:
    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, name: str, lease: timedelta) -> UUID | None:
        """Take the turn for `lease`, and return its token. None: another holder has the turn."""
        return self._database.run(_take, name, lease)

    def renew(self, name: str, token: UUID, lease: timedelta) -> bool:
        """Extend the turn to `lease` from now. False: it is another's by now."""
        statement = (
            update(turn)
            .where(turn.c.name == name, turn.c.token == token)
            .values(ends_at=func.clock_timestamp() + lease)
        )
        return self._database.run(lambda connection: connection.execute(statement).rowcount == 1)

    def free(self, name: str, token: UUID) -> None:
        statement = delete(turn).where(turn.c.name == name, turn.c.token == token)
        self._database.run(lambda connection: connection.execute(statement) and None)


def _take(connection: Connection, name: str, lease: timedelta) -> UUID | None:
    token = uuid4()
    made = insert(turn).values(name=name, token=token, ends_at=func.clock_timestamp() + lease)
    taken = made.on_conflict_do_update(
        index_elements=[turn.c.name],
        set_={"token": made.excluded.token, "ends_at": made.excluded.ends_at},
        where=turn.c.ends_at < func.clock_timestamp(),
    )
    return token if connection.scalar(taken.returning(turn.c.token)) is not None else None
