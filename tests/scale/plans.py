"""What the statements of a call read, as PostgreSQL's own plans say it: the real ones, in the real transactions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, event

from metadata.facade import Metadata

SMALL = frozenset(
    [
        "host", "store", "identified_store", "deleted_object", "turn", "promoted_bytes", "reader", "worker",
        "installation", "placement_rules", "job", "label", "tag", "tombstone", "catalogue_event",
        "catalogue_event_id_seq", "generation_seq",
    ]
)  # fmt: skip
"""Tables with few rows, in life or in filling.py."""
EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


@dataclass(frozen=True)
class Seen:
    statement: str
    plan: dict[str, Any]
    ms: float

    @property
    def scans(self) -> set[str]:
        """Tables that are read as a whole."""
        return {node["Relation Name"] for node in self._nodes() if node["Node Type"] == "Seq Scan"}

    @property
    def read(self) -> int:
        """Rows that are read of tables and indexes, also those that are passed over."""
        seen = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        return sum(
            int(sum(node.get(name, 0) for name in seen) * node["Actual Loops"])
            for node in self._nodes()
            if "Scan" in node["Node Type"] and "Relation Name" in node
        )

    def fault(self, *, rows: int, ms: float = math.inf) -> str | None:
        """Return what is wrong with the plan, or None."""
        if self.scans - SMALL:
            return f"reads all of {', '.join(sorted(self.scans - SMALL))}: {self.statement}"
        if self.read > rows:
            return f"reads {self.read:,} rows: {self.statement}"
        return f"takes {self.ms:,.0f} ms: {self.statement}" if self.ms > ms else None

    def _nodes(self) -> Iterator[dict[str, Any]]:
        left = [self.plan]
        while left:
            node = left.pop()
            left += node.get("Plans", [])
            yield node


@dataclass
class Plans:
    """Every statement is done once more before it is done, and taken back."""

    seen: list[Seen] = field(default_factory=list)

    @classmethod
    def of(cls, metadata: Metadata) -> Plans:
        plans = cls()
        event.listen(metadata.database._ensure_own().engine, "before_cursor_execute", plans._explain)
        return plans

    def of_call(self) -> list[Seen]:
        """Return what was seen since the last look."""
        found, self.seen = self.seen, []
        return found

    def _explain(self, _connection: Connection, cursor: Any, statement: str, values: Any, *_rest: object) -> None:
        if not statement.startswith(EXPLAINED):
            return
        session = cursor.connection
        held, session.holding = session.holding, False
        begin, end = ("SAVEPOINT explained", "ROLLBACK TO explained") if session.whole else ("BEGIN", "ROLLBACK")
        cursor.execute(begin)
        one = values[0] if isinstance(values, list) else values  # of those that are sent one by one
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, one)
        [[[found]]] = cursor.fetchall()
        cursor.execute(end)
        session.holding = held
        self.seen.append(Seen(statement, found["Plan"], found["Execution Time"] + found["Planning Time"]))
