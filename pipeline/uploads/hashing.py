"""SHA-256 of a body while it is received.

Hashing a large body takes about as long as receiving and writing it, and none of them needs the interpreter: so beyond
the first megabytes a thread hashes each piece while the next one is received. One piece at a time, so memory stays
bounded, and a piece must stay as it is until the one after the next is asked for.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

LARGE = 8 << 20
"""Below this a thread costs more than it gives."""


class Sha256:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def update(self, piece: bytes | memoryview) -> None:
        self._size += len(piece)
        if self._size <= LARGE:
            self._hash.update(piece)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sha256")
        self._settle()
        self._pending = self._thread.submit(self._hash.update, piece)

    def digest(self) -> bytes:
        self._settle()
        return self._hash.digest()

    def _settle(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown()
