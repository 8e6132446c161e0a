"""A composite that is looked at from outside at every write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from core.breaker import BreakerState
from core.model import BlobFacts
from storage.interface import Span, Stored
from storage.served_here import ServedHere
from tests.storage.composites import Composite


class Watched(ServedHere):
    """A composite whose every write is looked at in the stores themselves: those that the rule names hold the bytes,
    each once, and no other does but for faster reading. What is read is promoted where there is a hot store."""

    def __init__(self, composite: Composite) -> None:
        self.name = composite.name
        self.composite = composite

    @property
    def breaker(self) -> BreakerState:
        return self.composite.breaker

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        stored = self.composite.put(key, body, size=size, sha256=sha256, media_type=media_type)
        self.composite.copy(sha256)
        wanted = self.composite.wanted(key, BlobFacts(sha256, size, media_type))
        assert self.composite.held(sha256) == sorted(wanted | self.composite.promoted(sha256))
        return stored

    @contextmanager
    def open(self, key: str, span: Span | None = None) -> Iterator[BinaryIO]:
        sha256 = self.composite.asset(key).blob.sha256
        with self.composite.open(key, span) as body:
            yield body
        self.composite.copy(sha256)

    def head(self, key: str) -> Stored:
        return self.composite.head(key)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        return self.composite.scan(prefix, after=after)

    def delete(self, keys: Iterable[str]) -> None:
        asked = list(keys)
        self.composite.delete(asked)
        if not asked:
            return
        assert not set(asked) & {one.key for one in self.composite.scan()}
        assert self.composite.left_over() == []

    def sweep_unfinished(self) -> int:
        return self.composite.sweep_unfinished()

    def close(self) -> None:
        self.composite.close()
