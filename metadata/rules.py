"""The placement rules in force: one row, so that no process removes what another one's settings ask for.

A process that removes a replica because no rule names it says in its transaction which rules it means, and holds the
row until COMMIT. Rules are put in force by an explicit act; in a database that has none yet, by the first process that
uses a store or asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from database.transactions import Database
from metadata.schema import placement_rules


@dataclass(frozen=True, slots=True)
class Rules:
    """What a process believes of where bytes belong: what it says, and the hash of that."""

    fingerprint: bytes
    said: Mapping[str, Any]


class PlacementRules:
    def __init__(self, database: Database) -> None:
        self._database = database

    def in_force(self) -> tuple[Rules, datetime] | None:
        """Return the rules in force, and since when they are. None: no process has asked yet."""
        return self._database.read(_in_force)

    def are_in_force(self, own: Rules) -> bool:
        """Return whether these rules are in force. Where there are none yet, these are, from now on."""
        return self._database.run(are_in_force, own)

    def put_in_force(self, own: Rules) -> None:
        """Put these rules in force, after waiting for transactions that remove something by the old ones just now."""
        self._database.run(_put_in_force, own)


def are_in_force(connection: Connection, own: Rules) -> bool:
    """Return whether these rules are in force; if so, they stay so until COMMIT."""
    held = select(placement_rules.c.fingerprint).with_for_update(read=True)
    found = connection.scalar(held)
    if found is None:
        first = insert(placement_rules).values(fingerprint=own.fingerprint, said=dict(own.said))
        connection.execute(first.on_conflict_do_nothing())
        found = connection.scalar(held)
    return found is not None and bytes(found) == own.fingerprint


def _in_force(connection: Connection) -> tuple[Rules, datetime] | None:
    row = connection.execute(select(placement_rules)).one_or_none()
    return None if row is None else (Rules(bytes(row.fingerprint), row.said), row.since)


def _put_in_force(connection: Connection, own: Rules) -> None:
    values = {"fingerprint": own.fingerprint, "said": dict(own.said), "since": func.now()}
    statement = insert(placement_rules).values(values)
    other = placement_rules.c.fingerprint != own.fingerprint
    connection.execute(
        statement.on_conflict_do_update(index_elements=[placement_rules.c.one], set_=values, where=other)
    )
