"""Objects in this process's memory: for tests and for runs that keep nothing."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import BinaryIO, Literal

from core import clock
from core.breaker import BreakerState
from core.errors import AlreadyExists, NotFound
from storage.backend import Backend
from storage.interface import Span, Stored
from storage.object_keys import require_legal
from storage.options import Deployment, StoreOptions
from storage.reading import stops_at, verified_blocks
from storage.served_here import ServedHere


class MemoryOptions(StoreOptions):
    kind: Literal["memory"] = "memory"

    def objection(self, deployment: Deployment) -> str | None:
        if deployment.single_process:
            return None
        return "kind: a memory store is seen by one process only, and Millrace runs several; use filesystem"


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    sha256: bytes
    modified_at: datetime


class MemoryStore(ServedHere):
    def __init__(self, name: str, options: MemoryOptions) -> None:
        del options
        self.name = name
        self._objects: dict[str, _Object] = {}
        self._lock = Lock()

    @property
    def breaker(self) -> BreakerState:
        return "closed"

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        del media_type
        require_legal(key)
        buffer = io.BytesIO()
        for block in verified_blocks(body, size=size, sha256=sha256):
            buffer.write(block)
        made = _Object(buffer.getvalue(), sha256, clock.now())
        with self._lock:
            found = self._objects.setdefault(key, made)
        if found.sha256 != sha256:
            raise AlreadyExists(f"{key} holds other bytes")
        return _stored(key, found)

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        data = self._find(key).data
        if span is not None:
            data = data[span.start : stops_at(span, len(data))]
        return io.BytesIO(data)

    def head(self, key: str) -> Stored:
        return _stored(key, self._find(key))

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        with self._lock:
            names = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        for key in names:
            found = self._objects.get(key)
            if found is not None:
                yield _stored(key, found)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            require_legal(key)
            with self._lock:
                self._objects.pop(key, None)

    def sweep_unfinished(self) -> int:
        return 0

    def close(self) -> None:
        """Forgets everything, as the end of the process would."""
        self._objects.clear()

    def _find(self, key: str) -> _Object:
        require_legal(key)
        try:
            return self._objects[key]
        except KeyError:
            raise NotFound(f"{self.name} has no object {key}") from None


def _stored(key: str, found: _Object) -> Stored:
    return Stored(key=key, size=len(found.data), modified_at=found.modified_at, sha256=found.sha256)


BACKEND = Backend(MemoryOptions, MemoryStore)
