"""A process of our own (not a server that others wrote), as a `Service` (see supervise/processes.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervise.processes import Child, StopLadder

_SETTLED_SECONDS = 3.0


@dataclass(frozen=True)
class Process:
    """Without `probe` it counts as started when it has lived for a while."""

    name: str
    argv: list[str]
    variables: Mapping[str, str]
    stop_ladder: StopLadder
    probe: Callable[[], bool] | None = None

    def prepare(self) -> None:
        pass

    def mend(self) -> bool:
        return False

    def command(self) -> list[str]:
        return self.argv

    def environment(self) -> Mapping[str, str]:
        return self.variables

    def is_ready(self, child: Child) -> bool:
        return self.probe() if self.probe else child.age > _SETTLED_SECONDS


def program(name: str) -> str:
    """A console script beside this interpreter, so that the process shows under its own name."""
    return str(Path(sys.executable).parent / name)
