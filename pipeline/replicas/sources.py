"""Reading a blob from whichever of its replicas has it: the hottest first, and the next one where that fails.

A replica that turns out to be missing or wrong is marked so, and repaired in the background; a store that does not
answer costs its replicas nothing, and is left for another one before its time-outs have passed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import BinaryIO, Literal, Protocol

from core.errors import Archived, Busy, Corrupt, MillraceError, NotFound, StoreUnavailable, Unavailable
from core.model import Replica
from pipeline.services import Services
from pipeline.stores.failover import opened
from storage.interface import Span
from storage.reading import verified_blocks
from storage.throttle import UNTHROTTLED, Throttle

log = logging.getLogger(__name__)


class Opening(Protocol):
    def __call__(self, replica: Replica, *, spare: bool) -> AbstractContextManager[BinaryIO]:
        """`spare`: there is another replica to go to."""
        ...


@contextmanager
def stream(
    services: Services, sha256: bytes, span: Span | None = None, *, noted: bool = True, seconds: float | None = None
) -> Iterator[BinaryIO]:
    """The bytes, or a span of them, as they come from the store. What reads for itself, as copying does, is not noted
    as somebody who reads them. `seconds`: how long the last store that has them is waited for; None: as long as it
    takes.

    Raises:
        Archived: no other store has them now, and they must be restored first (`pipeline/jobs/restoration.py`).
        StoreUnavailable: no store that should hold them has them and answers.
    """

    def begun(replica: Replica, *, spare: bool) -> AbstractContextManager[BinaryIO]:
        opens = partial(services.store(replica.store).open, replica.key, span)
        return opened(services.silence(replica.store), opens, spare=spare, seconds=seconds)

    with _first(services, sha256, begun, noted=noted, begins=True) as body:
        yield body


@contextmanager
def local_file(services: Services, sha256: bytes) -> Iterator[BinaryIO]:
    """The bytes as a real file of this host, verified where they were downloaded.

    Raises:
        Archived, StoreUnavailable: as `stream`.
        Busy: another process of this host is still bringing them.
    """

    def copy(replica: Replica, *, spare: bool) -> AbstractContextManager[BinaryIO]:
        del spare
        store, blob = services.store(replica.store), replica.blob
        return services.copies.open(store, replica.key, size=blob.size, sha256=blob.sha256)

    with _first(services, sha256, copy) as file:
        yield file


@contextmanager
def _first(
    services: Services, sha256: bytes, opening: Opening, *, noted: bool = True, begins: bool = False
) -> Iterator[BinaryIO]:
    """`begins`: what is opened has begun to come, and is not there as a whole as a download is."""
    tried: dict[Replica, MillraceError] = {}
    with ExitStack() as stack:
        for replica, spare in _candidates(services, sha256):
            # An archive costs hours and money: before it is asked, who was only late is waited for.
            late = begins and isinstance(tried.get(replica), StoreUnavailable) and _archived(tried) is not None
            if replica in tried and not late:
                continue
            try:
                body = stack.enter_context(opening(replica, spare=spare and not late))
                if noted:
                    services.accesses.note(replica)
                break
            except NotFound as error:
                miss(services, replica, error)
                tried[replica] = error
            except Corrupt as error:
                doubt(services, replica, error)
                tried[replica] = error
            except Busy:
                raise  # with the bytes themselves, wherever they come from
            except Unavailable as error:
                tried[replica] = error
        else:
            problems = [error.detail for error in tried.values()] or ["no healthy replica is recorded"]
            raise _archived(tried) or StoreUnavailable(f"the bytes cannot be read now: {problems[-1]}")
        yield body


def _archived(tried: Mapping[Replica, MillraceError]) -> Archived | None:
    return next((error for error in tried.values() if isinstance(error, Archived)), None)


def is_whole(services: Services, replica: Replica, *, throttle: Throttle = UNTHROTTLED) -> bool:
    """Read all of it: are the right bytes there?

    Raises:
        Unavailable: its store does not say.
    """
    try:
        with services.store(replica.store).open(replica.key) as body:
            flow = throttle.body(body)
            for _ in verified_blocks(flow, size=replica.blob.size, sha256=replica.blob.sha256):
                pass
    except (NotFound, Corrupt):
        return False
    return True


def miss(services: Services, replica: Replica, error: NotFound) -> None:
    """Mark a replica as missing, where a second answer says so, too: one condemns nothing."""
    with suppress(Unavailable):
        try:
            services.store(replica.store).head(replica.key)
        except NotFound:
            mark(services, replica, "missing", error.detail)


def doubt(services: Services, replica: Replica, error: Corrupt, *, throttle: Throttle = UNTHROTTLED) -> None:
    """One reading condemns nothing: a bit that flipped on its way says nothing of the bytes that lie there."""
    with suppress(Unavailable):
        if not is_whole(services, replica, throttle=throttle):
            mark(services, replica, "corrupt", error.detail)


def _candidates(services: Services, sha256: bytes) -> Iterator[tuple[Replica, bool]]:
    """What the cache knows, and when none of it serves, what is recorded; each with whether there is another one. Those
    of silent stores come last."""
    for _ in range(2):
        found = services.placements.in_reading_order(services.lookups.replicas(sha256))
        if len(found) > 1:
            found.sort(key=lambda one: one.store in services.stores and services.silence(one.store).lasts())
        yield from ((one, one is not found[-1]) for one in found)
        services.lookups.forget_replicas(sha256)


def mark(services: Services, replica: Replica, state: Literal["missing", "corrupt"], detail: str) -> None:
    """Mark a replica in a store that is ours at this moment, and in no other: what that lacks says nothing."""
    with suppress(Unavailable):  # whoever reads it next finds the same
        services.recognitions[replica.store].look()
        outcome = services.metadata.repairs.mark(replica, state, detail)
        said = {"store": replica.store, "key": replica.key, "state": state, "detail": detail}
        if outcome == "marked":
            log.error("a replica is marked", extra=said)
        elif outcome == "dropped":
            log.warning("a copy for faster reading is dropped", extra=said)
