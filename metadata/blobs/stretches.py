"""Going through a store by stretches of its replicas in the order of their hashes: what is counted or looked at of a
whole store is, so that no statement reads more the more there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from metadata.schema import blob, replica

LENGTH = 5_000


@dataclass(frozen=True, slots=True)
class Counted:
    objects: int
    size: int
    """In bytes."""
    last: bytes | None
    """Where the next stretch begins. None: there is none."""


def end(connection: Connection, store: str, after: bytes, length: int) -> bytes | None:
    """Return the last hash of the next `length` recorded replicas of a store, whether they fit or not: what a stretch
    ends with, so that finding nothing takes no longer than finding all. None: there is no further one."""
    here = select(replica.c.blob).where(replica.c.store == store, replica.c.state != "pending", replica.c.blob > after)
    page = here.order_by(replica.c.blob).limit(length).subquery()
    return connection.scalar(select(page.c.blob).order_by(page.c.blob.desc()).limit(1))


def within(store: str, after: bytes, last: bytes) -> list[ColumnElement[bool]]:
    """Return the conditions for the recorded replicas of a stretch, joined with their blobs."""
    return [
        replica.c.store == store,
        replica.c.state != "pending",
        replica.c.blob > after,
        replica.c.blob <= last,
        blob.c.sha256 > after,  # the same of the blobs, so that they are read as a stretch, too
        blob.c.sha256 <= last,
    ]


def count(connection: Connection, store: str, after: bytes, which: ColumnElement[bool]) -> Counted:
    """Count what fits in the next stretch, and its bytes."""
    last = end(connection, store, after, LENGTH)
    if last is None:
        return Counted(0, 0, None)
    fitting = func.count().filter(which), func.coalesce(func.sum(blob.c.size).filter(which), 0)
    query = select(func.count(), *fitting).join_from(replica, blob, blob.c.sha256 == replica.c.blob)
    row = connection.execute(query.where(*within(store, after, last))).one()
    return Counted(int(row[1]), int(row[2]), last if row[0] >= LENGTH else None)


def is_any(query: Select[Any]) -> ColumnElement[bool]:
    """Return the condition that the query finds a row: one look into an index for each row around it, where PostgreSQL
    may take `exists` below an OR for a reason to read all of a table."""
    return query.limit(1).scalar_subquery().is_not(None)


def distinct(connection: Connection, name: ColumnElement[str], rows: Select[Any]) -> list[str]:
    """Return the different names, by one look into an index for each; `rows` selects from the table that has them."""
    found: list[str] = []
    query = rows.order_by(name).limit(1)
    while (one := connection.scalar(query.where(name > found[-1]) if found else query)) is not None:
        found.append(one)
    return found
