"""Threads of a test that work from entering a context until it is left."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self


class AtWork:
    """Whoever inherits makes `_threads`, which end soon after `_ended` is set."""

    _threads: Sequence[threading.Thread]

    def __init__(self) -> None:
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if error is None:
            self._judge()

    def _judge(self) -> None:
        """What is to hold once all of them have ended; not asked where something went wrong already."""
