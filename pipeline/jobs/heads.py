"""Asking a store for many objects side by side: a head is mostly waiting for a network, which a wish is not to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Final, Literal, TypeVar

from core.errors import Interrupted, NotFound
from core.model import Replica
from pipeline.jobs.flow import Heed
from storage.interface import ObjectStore
from storage.throttle import ASK_SECONDS

AT_ONCE: Final = 16

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

Fault = tuple[Literal["missing", "corrupt"], str]


class Heads:
    """So many threads, for as long as it is entered. The first error of a store ends a call; what was not begun by
    then is not asked any more. `heed` is called while answers are waited for; what it raises leaves those behind that
    are under way."""

    def __init__(self, heed: Heed) -> None:
        self._heed = heed

    def __enter__(self) -> Heads:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="heads")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        told_to_end = kind is not None and issubclass(kind, (Interrupted, GeneratorExit))
        self._pool.shutdown(wait=not told_to_end, cancel_futures=True)

    def faults(self, store: ObjectStore, replicas: Sequence[Replica]) -> list[tuple[Replica, Fault]]:
        """Those that are twice found missing or with other facts, in their order.

        Raises:
            Unavailable: the store does not say of one of them.
        """
        looks = self._answers(partial(_look_twice, store), replicas)
        return [(one, fault) for one, fault in zip(replicas, looks, strict=True) if fault is not None]

    def present(self, store: ObjectStore, keys: Sequence[str]) -> list[str]:
        """Those that are there.

        Raises:
            Unavailable: the store does not say of one of them.
        """
        found = self._answers(partial(is_there, store), keys)
        return [key for key, there in zip(keys, found, strict=True) if there]

    def _answers(self, look: Callable[[Asked], Answer], asked: Iterable[Asked]) -> Iterator[Answer]:
        looks = [self._pool.submit(look, one) for one in asked]
        try:
            for one in looks:
                yield self._heeded(one)
        finally:
            for one in looks:
                one.cancel()

    def _heeded(self, look: Future[Answer]) -> Answer:
        while not look.done():
            self._heed()
            wait([look], timeout=ASK_SECONDS)
        return look.result()


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
