"""Asking a store for many objects side by side: a head is mostly waiting for a network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, Literal

from core.errors import NotFound
from core.model import Replica
from storage.interface import ObjectStore

AT_ONCE: Final = 16

Fault = tuple[Literal["missing", "corrupt"], str]


class Heads:
    """So many threads, for as long as it is entered. The first error of a store ends a call; what was not begun by
    then is not asked any more."""

    def __enter__(self) -> Heads:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="heads")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def faults(self, store: ObjectStore, replicas: Sequence[Replica]) -> list[tuple[Replica, Fault]]:
        """Those that are twice found missing or with other facts, in their order.

        Raises:
            Unavailable: the store does not say of one of them.
        """
        looks = self._pool.map(partial(_look_twice, store), replicas)
        return [(one, fault) for one, fault in zip(replicas, looks, strict=True) if fault is not None]

    def present(self, store: ObjectStore, keys: Sequence[str]) -> list[str]:
        """Those that are there.

        Raises:
            Unavailable: the store does not say of one of them.
        """
        found = self._pool.map(partial(is_there, store), keys)
        return [key for key, there in zip(keys, found, strict=True) if there]


def is_there(store: ObjectStore, key: str) -> bool:
    try:
        store.head(key)
    except NotFound:
        return False
    return True


def _look_twice(store: ObjectStore, one: Replica) -> Fault | None:
    """One answer condemns nothing."""
    return _fault(store, one) and _fault(store, one)


def _fault(store: ObjectStore, one: Replica) -> Fault | None:
    try:
        there = store.head(one.key)
    except NotFound as error:
        return "missing", error.detail
    if there.size != one.blob.size:
        return "corrupt", f"{there.size:,} bytes are there instead of {one.blob.size:,}"
    if there.sha256 not in (None, one.blob.sha256):
        return "corrupt", "its store has another hash for it"
    return None
