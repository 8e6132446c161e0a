"""Sources that nothing can be made from: one failure each, however many variants are asked for.

The failure's id follows from the source, so there is one. Variants of such a source fail with it, also those asked for
later, and no worker decodes it again before a client wishes for that. An animation that breaks off after its first
frame has a failure for the variants that show all frames only.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    LargeBinary,
    Uuid,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from core.model import FailureReason, WantedVariant
from metadata.schema import TIME, failure, variant

SUBJECT = "source"
_NAMESPACE = UUID("5b7a0d3e-40fb-5d7c-8a43-0d6f2f0c9e51")


def mark(source: bytes, *, frames: bool) -> UUID:
    """Return the id of the source's failure. `frames`: only what shows all of them cannot be made."""
    return uuid5(_NAMESPACE, f"{source.hex()} {'frames' if frames else 'picture'}")


def marks(source: bytes, want: WantedVariant) -> dict[str, object]:
    """Return the parameters of `born`: the failures that this variant would share, and which variant it is."""
    shared = {"mark": mark(source, frames=False), "mark_too": mark(source, frames=bool(want.recipe.get("animated")))}
    return {**shared, "born_of": source, "born_as": want.recipe_hash}


def _shared(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Select a column of the failure that is there already, which stays until COMMIT. For a variant that is there, too,
    and so will not be born, the failure is left alone: a transaction that forgets both takes the variant first."""
    known = failure.c.id.in_([bindparam("mark", type_=Uuid()), bindparam("mark_too", type_=Uuid())])
    source, recipe = bindparam("born_of", type_=LargeBinary()), bindparam("born_as", type_=LargeBinary())
    there = exists().where(variant.c.source == source, variant.c.recipe_hash == recipe)
    return select(column).where(known, ~there).limit(1).with_for_update(read=True, key_share=True).scalar_subquery()


def born(lease_until: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    """Return the columns of a new variant that depend on whether its source is known not to be decodable."""
    kind = _shared(failure.c.kind)
    return {
        "state": case((kind.is_not(None), "failed"), else_="pending"),
        "lease_until": cast(case((kind.is_not(None), null()), else_=lease_until), TIME),
        "finished_at": case((kind.is_not(None), func.now()), else_=null()),
        "error_kind": kind,
        "error_detail": _shared(failure.c.detail),
    }


def settle(connection: Connection, source: bytes, reason: FailureReason, *, frames: bool) -> None:
    """Fail the pending variants of a source from which nothing can be made, also those that a worker has leased."""
    concerned = variant.c.recipe["animated"].astext.cast(Boolean) if frames else true()
    connection.execute(
        update(variant)
        .where(variant.c.source == source, variant.c.state == "pending", concerned)
        .values(
            state="failed",
            finished_at=func.now(),
            unfinished=0,
            lease_until=None,
            error_kind=reason.kind,
            error_detail=reason.detail,
        )
    )
    what = {"kind": reason.kind, "detail": reason.detail, "failed_at": func.now(), "wish": None}
    statement = insert(failure).values(id=mark(source, frames=frames), subject=SUBJECT, source=source, **what)
    connection.execute(statement.on_conflict_do_update(index_elements=[failure.c.id], set_=what))
    if not frames:
        connection.execute(delete(failure).where(failure.c.id == mark(source, frames=True)))


def retry(connection: Connection, failure_id: UUID) -> None:
    """Start anew all that failed with it; twice, because some may be asked for until the failure is gone."""
    source = _source(connection, failure_id)
    if source is not None:
        _revive(connection, source)
        connection.execute(delete(failure).where(failure.c.id == failure_id))
        _revive(connection, source)


def forget(connection: Connection, failure_id: UUID) -> None:
    """Delete all that failed with it: a client that asks again starts anew."""
    source = _source(connection, failure_id)
    if source is not None:
        _remove(connection, source)
        connection.execute(delete(failure).where(failure.c.id == failure_id))
        _remove(connection, source)


def without_variants() -> ColumnElement[bool]:
    """Return the condition for failures of sources of which no variant is left."""
    return (failure.c.subject == SUBJECT) & ~exists().where(variant.c.source == failure.c.source)


def _source(connection: Connection, failure_id: UUID) -> bytes | None:
    return connection.scalar(select(failure.c.source).where(failure.c.id == failure_id, failure.c.subject == SUBJECT))


def _failed(source: bytes) -> ColumnElement[bool]:
    """Return the condition for failed variants of a source that have no failure of their own."""
    own = exists().where(failure.c.id == variant.c.id)
    return (variant.c.source == source) & (variant.c.state == "failed") & ~own


def _revive(connection: Connection, source: bytes) -> None:
    fresh = {"state": "pending", "attempts": 0, "unfinished": 0, "next_attempt_at": func.now()}
    gone = {"lease_until": None, "finished_at": None, "error_kind": None, "error_detail": None}
    connection.execute(update(variant).where(_failed(source)).values(**fresh, **gone))


def _remove(connection: Connection, source: bytes) -> None:
    connection.execute(delete(variant).where(_failed(source)))
