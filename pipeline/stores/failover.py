"""Doing without a store that is silent: readers go to another one that has the bytes, writers come again later.

Nothing rests on it. A store that is taken for silent too soon costs a reader the hotter copy, and an upload a while in
staging; no row learns of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import BinaryIO, Final

from core.errors import StoreUnavailable
from core.silence import Silence
from storage.interface import ObjectStore

OPEN_SECONDS: Final = 2.0
"""A store that has not begun to send by then is late."""
WRITE_SECONDS: Final = 1.0
BYTES_PER_SECOND: Final = 1_000_000
"""One that has not taken a body after `WRITE_SECONDS` and what its size takes at this rate is, too: a look is
cheap, and tells a slow store from a silent one."""
LATE_READERS: Final = 3
"""So many late readers, and those who have nowhere else to go are sent away at once: waiting threads would be missed by
readers of other stores."""

LOOK_SECONDS: Final = 0.5
"""So long whoever has nowhere else to go waits for the answer to a look: a slow disk has one, and is not silent."""
PROBE_KEY: Final = "millrace-health-probe"
"""Asked for to hear anything at all. There is no such object."""

Opening = Callable[[], AbstractContextManager[BinaryIO]]


def silence_of(store: ObjectStore) -> Silence:
    return Silence(partial(store.head, PROBE_KEY))


@contextmanager
def opened(silence: Silence, opening: Opening, *, spare: bool, seconds: float | None = None) -> Iterator[BinaryIO]:
    """What is opened, as soon as it is. `spare`: the caller can go elsewhere. `seconds`: how long it waits where it
    cannot; None: as long as the store takes.

    Raises:
        StoreUnavailable: the store is silent.
    """
    with ExitStack() as stack:
        if not spare and silence.lasts(LATE_READERS, patience=LOOK_SECONDS):
            raise StoreUnavailable("its store does not answer at this moment")
        patience = OPEN_SECONDS if spare else seconds
        if patience is None:
            with silence.call(OPEN_SECONDS):
                body = stack.enter_context(opening())
        else:
            kept, body = _opened_beside(silence, opening, patience)
            stack.enter_context(kept)
        yield body


@contextmanager
def writing(silence: Silence, size: int) -> Iterator[None]:
    """Around what sends a body: not while the store is silent, so that of the few who work on uploads only those wait
    for it who were at it when it fell silent.

    Raises:
        StoreUnavailable: the store is silent.
    """
    require_answers(silence)
    with silence.call(WRITE_SECONDS + size / BYTES_PER_SECOND):
        yield


def require_answers(silence: Silence) -> None:
    """
    Raises:
        StoreUnavailable: the store is silent.
    """
    if silence.lasts(patience=LOOK_SECONDS):
        raise StoreUnavailable("a store that shall hold it does not answer at this moment")


def _opened_beside(silence: Silence, opening: Opening, seconds: float) -> tuple[ExitStack, BinaryIO]:
    """In a thread of its own, which is left behind when it takes too long: it closes what comes late."""
    opened: Future[tuple[ExitStack, BinaryIO]] = Future()

    def run() -> None:
        with ExitStack() as stack:
            try:
                with silence.call(OPEN_SECONDS):
                    body = stack.enter_context(opening())
                kept = stack.pop_all()
                try:
                    opened.set_result((kept, body))
                except InvalidStateError:
                    kept.close()
            except BaseException as error:  # noqa: BLE001 - the one who waits raises it
                with suppress(InvalidStateError):  # nobody waits any more
                    opened.set_exception(error)

    threading.Thread(target=run, name="open", daemon=True).start()
    try:
        return opened.result(seconds)
    except TimeoutError:
        if not opened.cancel():
            return opened.result()  # it came at this very moment
        raise StoreUnavailable("its store has not begun to answer") from None
