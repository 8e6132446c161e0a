"""A store that is used only while it is the one that this installation filled.

Around every store, in one place (pipeline/services.py), so that no use case can forget it. What recognises a store asks
more than the store itself, and lives in the pipeline (pipeline/stores/recognition.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import BinaryIO, Protocol

from core.breaker import BreakerState
from core.errors import NotFound
from storage.interface import ObjectStore, Span, Stored
from storage.object_keys import MARKER


class Recognition(Protocol):
    def require(self, *, writing: bool = False) -> None:
        """Look whether it is our store, unless that was seen lately.

        Raises:
            StrangeStore: it is not.
            Unavailable: what could tell does not answer.
        """

    def look(self, *, writing: bool = True) -> None:
        """Look as `require` does for one who writes, but now, even if it was seen lately."""


class RecognisedStore:
    """Raises what `Recognition` raises, from every method but `name`, `breaker`, `establish` and `close`. A `NotFound`
    comes out only if the store is ours at that moment. A listing leaves the marker out."""

    def __init__(self, store: ObjectStore, recognition: Recognition) -> None:
        self.name = store.name
        self.store = store
        self._recognition = recognition

    @property
    def breaker(self) -> BreakerState:
        return self.store.breaker

    def establish(self) -> None:
        self.store.establish()

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        self._recognition.require(writing=True)
        return self.store.put(key, body, size=size, sha256=sha256, media_type=media_type)

    @contextmanager
    def open(self, key: str, span: Span | None = None) -> Iterator[BinaryIO]:
        self._recognition.require()
        with ExitStack() as stack:
            with self._missing_from_ours():
                body = stack.enter_context(self.store.open(key, span))
            yield body

    def head(self, key: str) -> Stored:
        self._recognition.require()
        with self._missing_from_ours():
            return self.store.head(key)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        self._recognition.require(writing=True)  # what is concluded from a listing is as final as a write
        for found in self.store.scan(prefix, after=after):
            if found.key != MARKER:
                yield found

    def delete(self, keys: Iterable[str]) -> None:
        self._recognition.require(writing=True)
        self.store.delete(keys)

    def copy_from(self, source: ObjectStore, source_key: str, key: str) -> Stored | None:
        self._recognition.require(writing=True)
        return self.store.copy_from(bare(source), source_key, key)

    def url(self, key: str, *, ttl: timedelta, download_name: str | None = None) -> str | None:
        self._recognition.require()
        return self.store.url(key, ttl=ttl, download_name=download_name)

    def restore(self, key: str) -> int:
        self._recognition.require()
        with self._missing_from_ours():
            return self.store.restore(key)

    def sweep_unfinished(self) -> int:
        self._recognition.require(writing=True)
        return self.store.sweep_unfinished()

    def close(self) -> None:
        self.store.close()

    def _missing_from_ours(self) -> AbstractContextManager[None]:
        return _looking(self._recognition)


@contextmanager
def _looking(recognition: Recognition) -> Iterator[None]:
    try:
        yield
    except NotFound:
        recognition.look(writing=False)
        raise


def bare(store: ObjectStore) -> ObjectStore:
    """Take the store itself, recognised or not: for looking at what it is."""
    return store.store if isinstance(store, RecognisedStore) else store
