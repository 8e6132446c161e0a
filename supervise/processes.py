"""Child processes that die with us, are known by more than their number, and end in order.

A process is identified by pid *and* start time: a pid alone may belong to somebody else by the time it is used.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core import parent_death
from core.errors import Misconfigured
from supervise.crash_reason import complaint, telling

StopLadder = Sequence[tuple[int, float]]
"""Signals to send in turn, each with the seconds to wait before the next. The last should be SIGKILL."""

POLITE: StopLadder = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


class Service(Protocol):
    """Something that runs as one child process."""

    @property
    def name(self) -> str: ...
    @property
    def stop_ladder(self) -> StopLadder: ...
    def prepare(self) -> None:
        """Everything that must be there before the first start."""
        ...

    def command(self) -> list[str]: ...
    def environment(self) -> Mapping[str, str]:
        """All that the child gets."""
        ...

    def is_ready(self, child: Child) -> bool: ...
    def mend(self) -> bool:
        """Called when the first start failed; True: something was put right, try once more."""
        ...


@dataclass(frozen=True)
class Identity:
    """A process for as long as it lives: the kernel never gives the same pid and start time twice between boots."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(fields[18]))

    def is_alive(self) -> bool:
        return Identity.of(self.pid) == self

    def ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.is_alive():
                os.kill(self.pid, number)


@dataclass(frozen=True)
class Finished:
    code: int
    said: str
    complained: str

    @property
    def reason(self) -> str:
        lines = (line.strip() for line in (self.complained or self.said).splitlines())
        return telling(line for line in lines if line) or f"exit {self.code}"


@dataclass
class Child:
    """A running service."""

    service: Service
    process: subprocess.Popen[bytes]
    log: Path
    log_from: int
    """Where its own lines begin."""
    started_at: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def age(self) -> float:
        return time.monotonic() - self.started_at

    def has_ended(self) -> bool:
        return self.process.poll() is not None


def spawn(service: Service, log: Path) -> Child:
    """Start a service in a session of its own; it is killed when this process dies. Call it from the main thread:
    the kernel watches the thread that forked."""
    tether = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
    with log.open("ab") as output:
        log_from = output.tell()
        process = subprocess.Popen(  # noqa: S603 - an argument list of our own
            [*tether, *service.command()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(service.environment()),
            start_new_session=True,
        )
    return Child(service, process, log, log_from, time.monotonic())


def server_environment() -> dict[str, str]:
    """Little for a server that is not ours; the home, so that a left-over can be told to be ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "MILLRACE_HOME") if name in os.environ}
    return {"LC_ALL": "C", **kept}


def capture(command: Sequence[str], *, say: str = "", seconds: float = 20, **options: Any) -> Finished:
    """Run a short program to its end. One that cannot be started, or takes too long, is one that failed."""
    try:
        done = subprocess.run(  # noqa: S603 - an argument list of our own
            command, input=say, capture_output=True, text=True, check=False, timeout=seconds, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finished(127, "", str(error))
    return Finished(done.returncode, done.stdout, done.stderr)


def start(service: Service, log: Path, *, seconds: float = 60) -> Child:
    """Prepare, spawn and wait until ready.

    Raises:
        Misconfigured: it ended or stayed silent; with the last line of its log.
    """
    service.prepare()
    child = spawn(service, log)
    try:
        wait_until_ready(child, seconds=seconds)
    except Misconfigured:
        stop([child])
        if not service.mend():
            raise
        return start(service, log, seconds=seconds)
    except BaseException:
        stop([child])
        raise
    return child


def wait_until_ready(child: Child, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not child.service.is_ready(child):
        if child.has_ended():
            raise Misconfigured(f"{child.service.name} ended while starting: {cause(child)}")
        if time.monotonic() > deadline:
            raise Misconfigured(f"{child.service.name} was not ready after {seconds:.0f} s: {cause(child)}")
        time.sleep(0.02)


def stop(children: Iterable[Child]) -> None:
    """Send each child its ladder of signals, all side by side, and return when every one has ended."""
    waiting = [(child, _climb(child)) for child in children]
    while waiting:
        waiting = [(child, climb) for child, climb in waiting if climb()]
        time.sleep(0.02)


def _climb(child: Child) -> Callable[[], bool]:
    """A step function that moves one child down its ladder; False once the child has ended."""
    ladder = iter(child.service.stop_ladder)
    next_signal_at = 0.0

    def step() -> bool:
        nonlocal next_signal_at
        if child.has_ended():
            return False
        if time.monotonic() >= next_signal_at:
            number, patience = next(ladder, (signal.SIGKILL, 1.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)
                if number != signal.SIGKILL:
                    os.kill(child.pid, signal.SIGCONT)  # a stopped process would never hear it
            next_signal_at = time.monotonic() + patience
        return True

    return step


def cause(child: Child) -> str:
    """Why a child ended, in one line: its exit, and what it said last if it ended by itself."""
    code = child.process.poll()
    if code is not None and code < 0:
        return signal.Signals(-code).name
    how = "still running" if code is None else f"exit {code}"
    said = complaint(child.log, child.log_from)
    return f"{how}: {said}" if said else how
