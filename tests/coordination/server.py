"""A Valkey of one test's own, to be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Self

from supervise.embedded_valkey import Valkey
from supervise.processes import Child, start, stop


class OwnServer:
    def __init__(self, data: Path, run: Path, log: Path) -> None:
        self._server = Valkey(data, run)
        self._log = log
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            os.kill(self.pid, signal.SIGCONT)
            stop([self._child])

    def start(self) -> None:
        """On the port it had."""
        self._child = start(self._server, self._log)

    def kill(self) -> None:
        assert self._child is not None
        os.kill(self.pid, signal.SIGKILL)
        stop([self._child])
        self._child = None
