"""What the catalogue has not been told yet: which assets and variants became other than they were.

Guarantees: an event is committed with what it tells of, or not at all. It only names: whoever writes it down reads what
is true by then, which is never older than the event. Whatever changes an asset holds a lock on it, so the events of one
asset get their ids in the order of its changes: of two lines about one thing the one with the higher id is right, in
whatever order they were written. An event stays until `forget`; one that commits late is only written late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Connection,
    cast,
    delete,
    exists,
    insert,
    select,
    text,
    tuple_,
    update,
)

from database.transactions import Database
from metadata.journal import journal_records
from metadata.journal.journal_records import Fact, Named
from metadata.schema import asset, asset_variant, catalogue_event, path_counter, tombstone, variant

REFILL = 20_000
"""Rows in one transaction."""


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    asset_id: UUID | None
    variant_id: UUID | None
    path_hash: bytes | None


class Outbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, after: int, limit: int) -> list[Event]:
        """Events in the order of their ids."""
        query = select(catalogue_event).where(catalogue_event.c.id > after).order_by(catalogue_event.c.id).limit(limit)
        return self._database.read(lambda connection: [Event(*row) for row in connection.execute(query)])

    def facts(self, events: Sequence[Event]) -> list[tuple[int, Fact]]:
        """What is true now of everything that the events name, once each, with the id of the last event that names it.
        What left no trace, such as a variant that nobody asks for any more, is left out."""
        latest: dict[Named, int] = {}
        for event in events:
            if event.asset_id is not None or event.variant_id is not None:
                latest[event.asset_id, event.variant_id] = event.id
            if event.path_hash is not None:
                latest[event.path_hash] = event.id
        return self._database.read(journal_records.look_up, latest)

    def forget(self, events: Sequence[int]) -> None:
        """These ids are written down."""
        statement = delete(catalogue_event).where(catalogue_event.c.id.in_(events))
        self._database.run(lambda connection: connection.execute(statement) and None)

    def last(self) -> int:
        """The highest id that was ever given."""
        query = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM catalogue_event_id_seq")
        return self._database.read(lambda connection: int(connection.scalar(query) or 0))

    def advance(self, beyond: int) -> None:
        """Give ids above `beyond` from now on."""
        self._database.run(advance, beyond)

    def renumber(self, up_to: int) -> int:
        """Events with such ids get new ones, so that what is written of them overrules what was written before; returns
        how many. In which order is of no account: what is true is read later. Ids above `up_to` are given out by now
        (`advance`)."""
        renumbered = 0
        while batch := self._database.run(_renumber, up_to):
            renumbered += batch
        return renumbered

    def refill(self) -> int:
        """Note an event for everything there is, for a catalogue that was lost or never begun; return how many."""
        filled = 0
        for turn, start in ((_refill_assets, UUID(int=0)), (_refill_tombstones, UUID(int=0)),
                            (_refill_variants, UUID(int=0)), (_refill_counters, b"")):  # fmt: skip
            after: Any = start
            while after is not None:
                count, after = self._database.run(turn, after)
                filled += count
        return filled


def _renumber(connection: Connection, up_to: int) -> int:
    """Renumber some of the events, and return how many: after a refill there are as many as there is of everything."""
    some = (
        select(catalogue_event.c.id).where(catalogue_event.c.id <= up_to).order_by(catalogue_event.c.id).limit(REFILL)
    )
    statement = update(catalogue_event).where(catalogue_event.c.id.in_(some)).values(id=text("DEFAULT"))
    return connection.execute(statement).rowcount


def noted(**named: Any) -> CTE:
    """The event as a part (`add_cte`) of the statement that makes it true: no round trip more. Not by `values`, which
    would take that statement's parameters for its own."""
    columns = {catalogue_event.c[name]: value for name, value in named.items()}
    values = select(*(cast(value, column.type) for column, value in columns.items()))
    return insert(catalogue_event).from_select(list(named), values).cte("noted")


def note(connection: Connection, **named: Any) -> None:
    connection.execute(insert(catalogue_event).values(named))


def advance(connection: Connection, beyond: int) -> None:
    connection.execute(
        text("SELECT setval('catalogue_event_id_seq', greatest(:beyond, nextval('catalogue_event_id_seq')))"),
        {"beyond": beyond},
    )


Turn = tuple[int, Any]
"""How many events, and after which row to go on."""


def _refill_assets(connection: Connection, after: UUID) -> Turn:
    """With what each asked for beside its eager variants, which are a part of it."""

    def asked(within: ColumnElement[bool]) -> int:
        lazy = select(asset_variant.c.asset_id, asset_variant.c.variant_id).join_from(asset_variant, asset)
        columns = ["asset_id", "variant_id"]
        chosen = lazy.where(within, ~asset_variant.c.eager).distinct()
        return connection.execute(insert(catalogue_event).from_select(columns, chosen)).rowcount

    return _fill(connection, "asset_id", asset.c.id, after, beside=asked)


def _refill_tombstones(connection: Connection, after: UUID) -> Turn:
    return _fill(connection, "asset_id", tombstone.c.asset_id, after)


def _refill_variants(connection: Connection, after: UUID) -> Turn:
    return _fill(connection, "variant_id", variant.c.id, after, variant.c.state == "ready")


def _refill_counters(connection: Connection, after: bytes) -> Turn:
    """Only where the last entry of a path is known from nothing else."""
    last = tuple_(path_counter.c.path_hash, path_counter.c.next - 1)
    told = [exists().where(tuple_(one.c.path_hash, one.c.entry) == last) for one in (asset, tombstone)]
    return _fill(connection, "path_hash", path_counter.c.path_hash, after, *(~one for one in told))


def _fill(
    connection: Connection,
    name: str,
    key: Column[Any],
    after: Any,
    *conditions: ColumnElement[bool],
    beside: Callable[[ColumnElement[bool]], int] = lambda _: 0,
) -> Turn:
    page = select(key).where(key > after, *conditions).order_by(key).limit(REFILL)
    found = list(connection.scalars(page))
    if not found:
        return 0, None
    connection.execute(insert(catalogue_event).from_select([name], page))
    return len(found) + beside(key.between(found[0], found[-1])), found[-1]
