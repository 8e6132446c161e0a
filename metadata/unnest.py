"""Many rows as one parameter for each column, so that a statement for many is one round trip.

made = Rows("made", column("id", Uuid), column("fence", BigInteger))
STATEMENT = update(variant).where(variant.c.id == made.c.id, …)
connection.execute(STATEMENT, made.parameters([(id, fence), …]))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnClause, bindparam, cast, func
from sqlalchemy.dialects.postgresql import ARRAY


class Rows:
    """`unnest(…) AS name(columns)`; the rows themselves come with each execution."""

    def __init__(self, name: str, *columns: ColumnClause[Any]) -> None:
        self._names = [f"{name}_{one.name}" for one in columns]
        given = [
            cast(bindparam(parameter), ARRAY(one.type)) for parameter, one in zip(self._names, columns, strict=True)
        ]
        self.table = func.unnest(*given).table_valued(*columns, name=name).render_derived()
        self.c = self.table.c

    def parameters(self, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
        values = zip(*rows, strict=True) if rows else ([] for _ in self._names)
        return {name: list(found) for name, found in zip(self._names, values, strict=True)}
