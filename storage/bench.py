"""How fast a store is, operation by operation. Everything written is removed again, however the bench ends."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from core.errors import Archived
from core.sections import KIB, MIB
from core.timings import Timings, measure
from storage.interface import ObjectStore, Span
from storage.object_keys import MEASURED

WRITTEN_AT_MOST = 512 * MIB
"""Of each size: so much may a bench take of a disk that others use."""
RANGE = 64 * KIB
ROUNDS = 10_000


@dataclass(frozen=True, slots=True)
class Measured:
    store: str
    size: int
    operation: str
    rounds: int
    p50_ms: float
    p99_ms: float
    mb_per_s: float | None
    """Of bodies, one after the other. None: the operation moves none."""


class Bench:
    """One caller, one operation at a time. `clean_up` must follow, also when `run` was interrupted."""

    def __init__(self, store: ObjectStore, *, seconds: float, interrupted: Callable[[], bool]) -> None:
        """`seconds` is what each operation is measured for. `interrupted` is asked before each call of the store:
        an exception in the middle of one could leave its temporary file or its multipart upload behind."""
        self._store = store
        self._seconds = seconds
        self._interrupted = interrupted
        self._own = f"{MEASURED}{uuid4().hex}."
        self._written: list[str] = []
        """Noted before it is written."""

    def run(self, size: int) -> Iterator[Measured]:
        """Raises KeyboardInterrupt once it is interrupted."""
        data = random.randbytes(size)
        digest = hashlib.sha256(data).digest()
        first = len(self._written)

        def put(_: int) -> None:
            key = f"{self._own}{len(self._written)}"
            self._written.append(key)
            self._store.put(key, io.BytesIO(data), size=size, sha256=digest, media_type="application/octet-stream")

        rounds = max(1, min(ROUNDS, WRITTEN_AT_MOST // max(size, 1)))
        yield self._said(size, "put", self._measure(put, rounds), size)
        keys = self._written[first:]

        def pick(number: int) -> str:
            return keys[number % len(keys)]

        def get(number: int) -> None:
            with self._store.open(pick(number)) as body:
                while body.read(MIB):
                    pass

        part = min(RANGE, max(size // 2, 1))

        def ranged(number: int) -> None:
            start = random.randrange(size - part + 1)
            with self._store.open(pick(number), Span(start, start + part)) as body:
                while body.read(MIB):
                    pass

        with suppress(Archived):  # it cannot be read at once
            yield self._said(size, "get", self._measure(get), size)
            if size:
                yield self._said(size, "range", self._measure(ranged), part)
        yield self._said(size, "head", self._measure(lambda number: self._store.head(pick(number))), None)
        delete = self._measure(lambda number: self._store.delete([keys[number]]), len(keys))
        yield self._said(size, "delete", delete, None)

    def clean_up(self) -> None:
        self._store.delete(self._written)

    def _measure(self, call: Callable[[int], object], rounds: int = ROUNDS) -> Timings:
        def unless_interrupted(number: int) -> None:
            if self._interrupted():
                raise KeyboardInterrupt
            call(number)

        return measure(unless_interrupted, rounds=rounds, seconds=self._seconds)

    def _said(self, size: int, operation: str, timings: Timings, moved: int | None) -> Measured:
        rounds = len(timings.samples)
        rate = None if moved is None else moved * rounds / timings.total / 1e6
        return Measured(self._store.name, size, operation, rounds, timings.p50_ms, timings.p99_ms, rate)
