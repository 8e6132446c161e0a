"""What clients were told: the record the checker holds the database and the store against."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from uuid import UUID


@dataclass
class Told:
    """One upload and its answer. `status` is None where the answer was lost: both outcomes are allowed then."""

    path: str
    sha256: str
    key: str | None
    status: int | None
    upload_id: UUID | None = None
    asset_id: UUID | None = None
    location: str | None = None
    deleted: bool = False
    seconds: float = 0
    """How long the answer took."""


@dataclass
class History:
    uploads: list[Told] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, told: Told) -> Told:
        with self._lock:
            self.uploads.append(told)
        return told

    @property
    def accepted(self) -> list[Told]:
        return [told for told in self.uploads if told.status in (201, 202)]

    @property
    def refused(self) -> list[Told]:
        return [told for told in self.uploads if told.status is not None and told.status not in (201, 202)]
