"""PostgreSQL's ltree as a column type."""

from __future__ import annotations

from typing import Any

from sqlalchemy import types
from sqlalchemy.dialects.postgresql import base


class LTREE(types.UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_kwargs: Any) -> str:
        return "LTREE"


base.ischema_names["ltree"] = LTREE  # so that reflection, and with it the test "models equal migrations", knows it
