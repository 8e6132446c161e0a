"""What calls are about: rows of a database made by filling.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from core.model import BlobFacts, Replica
from metadata.blobs.demotion import Filter
from metadata.facade import Metadata
from tests.scale.filling import LOST, SHARED

Call = Callable[[], object]


class Found:
    """Some of the rows, by what is special about them."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._now = datetime.now(UTC)
        self.middle = b"\x80" + bytes(31)
        self.old = Filter(None, None, "*", self._now, self._now)
        self.shared, self.lost = self._scalar(f"SELECT {SHARED}"), self._scalar(f"SELECT {LOST}")
        self.paths = self._column("SELECT path_text FROM asset WHERE blob = :value ORDER BY id LIMIT 4", self.shared)

    def _scalar(self, statement: str, value: object = None) -> Any:
        return self._column(statement, value)[0]

    def _column(self, statement: str, value: object = None) -> list[Any]:
        values = {} if value is None else {"value": value}
        query = text(statement)
        return self._metadata.database.read(
            lambda connection: [
                bytes(one) if isinstance(one, memoryview) else one for one in connection.scalars(query, values)
            ]
        )

    def _replica(self, where: str) -> Replica:
        query = text(f"SELECT blob, store, generation FROM replica WHERE {where} ORDER BY blob LIMIT 1")
        row = self._metadata.database.read(lambda connection: connection.execute(query).one())
        size = self._scalar("SELECT size FROM blob WHERE sha256 = :value", bytes(row.blob))
        return Replica(BlobFacts(bytes(row.blob), size, "image/jpeg"), row.store, row.generation)
