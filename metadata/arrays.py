"""Many rows as one parameter for each column, so that a statement for many is one round trip and compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnClause, TableValuedAlias, cast, func
from sqlalchemy.dialects.postgresql import ARRAY


def table(name: str, *columns: ColumnClause[Any], rows: Sequence[Sequence[Any]]) -> TableValuedAlias:
    """`unnest(…) AS name(columns)`: a table of `rows`, each with a value for each of the columns."""
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    given = [cast(list(found), ARRAY(one.type)) for one, found in zip(columns, values, strict=True)]
    return func.unnest(*given).table_valued(*columns, name=name).render_derived()
