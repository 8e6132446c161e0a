"""What a process has begun and must give back when it is told to go, whichever of its threads is at it.

The exception that tells a process to go reaches the main thread only. Another thread is cut off with its process, which
looks like a crash and would be counted as one; so a process that is told to go gives back what all of them hold.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_begun: dict[object, Callable[[], None]] = {}


@contextmanager
def given_back(give_back: Callable[[], None]) -> Iterator[None]:
    """Let `give_everything_back` call `give_back`, from another thread, while the block runs."""
    token = object()
    _begun[token] = give_back
    try:
        yield
    finally:
        _begun.pop(token, None)


def give_everything_back() -> None:
    """Give back all, as the process ends. What its threads still do is fenced, or held by a claim that ends with it."""
    for token in list(_begun):
        give_back = _begun.pop(token, None)
        if give_back is not None:
            try:
                give_back()
            except Exception:
                log.exception("what was begun could not be given back")
