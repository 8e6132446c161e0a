"""Keeps a stack of children running: what dies is started again, what cannot start ends the stack.

A child that ends by itself before it was ever ready ends the stack at once; so do two such starts in a row later, or
five deaths of one child within a minute. Whatever happens, `stop` leaves no descendant behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli import orphans, processes
from cli.processes import Child, Service
from cli.run_directory import RunDirectory
from cli.stop import Stop
from core.errors import MillraceError, Misconfigured
from core.parent_death import adopt_orphans

_TICK_SECONDS = 0.2
_DEATHS, _WINDOW_SECONDS = 5, 60.0
_LOG_BYTES = 16 << 20
_LOG_CHECK_SECONDS = 60.0


class StackFailed(MillraceError):
    """The stack ended because of one of its children; the detail is the cause."""

    code = "stack-failed"


@dataclass
class _Slot:
    """The place of one service in the stack, whichever process fills it now."""

    service: Service
    child: Child
    ready: bool = False
    failed_starts: int = 0
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_DEATHS))


class Supervisor:
    """Use it from the main thread: children die with the thread that started them."""

    def __init__(self, run: RunDirectory, logs: Path, say: Callable[[str], None]) -> None:
        self._run = run
        self._logs = logs
        self._say = say
        self._groups: list[list[_Slot]] = []
        adopt_orphans()

    def start(self, services: Sequence[Service]) -> None:
        """Start a group side by side. Groups are stopped in the reverse order.

        Raises:
            StackFailed: one of them ended by itself.
        """
        group: list[_Slot] = []
        self._groups.append(group)
        for service in services:
            service.prepare()
            group.append(_Slot(service, self._spawn(service)))

    def wait_until_ready(self, services: Iterable[Service], *, seconds: float = 60, stop: Stop | None = None) -> None:
        """Watch all children until these are ready.

        Raises:
            StackFailed: a child cannot be kept running, or one of these stays silent.
        """
        wanted = {service.name for service in services}
        deadline = time.monotonic() + seconds
        while waiting := [slot for slot in self._slots() if slot.service.name in wanted and not slot.ready]:
            if stop is not None and stop.is_set():
                return
            self.look_after()
            if time.monotonic() > deadline:
                slot = waiting[0]
                raise StackFailed(
                    f"{slot.service.name} was not ready after {seconds:.0f} s: {processes.cause(slot.child)}"
                )
            time.sleep(0.02)

    def watch(self, stop: Stop, others: Callable[[], None]) -> None:
        """Keep everything running until `stop` is set; `others` is called at every tick.

        Raises:
            StackFailed: a child cannot be kept running.
        """
        logs_checked = time.monotonic()
        while not stop.wait(_TICK_SECONDS):
            self.look_after()
            others()
            if time.monotonic() - logs_checked > _LOG_CHECK_SECONDS:
                logs_checked = time.monotonic()
                for log in self._logs.glob("*.log"):
                    bound(log)

    def look_after(self) -> None:
        for slot in self._slots():
            if slot.child.has_ended():
                self._replace(slot)
            elif not slot.ready and slot.service.is_ready(slot.child):
                slot.ready, slot.failed_starts = True, 0
        orphans.end(self._pids())

    def stop(self) -> None:
        for group in reversed(self._groups):
            processes.stop(slot.child for slot in group)
            orphans.end(self._pids())
            for slot in group:
                self._run.forget(slot.service.name)
        self._groups.clear()
        orphans.end(())

    def _replace(self, slot: _Slot) -> None:
        name, why = slot.service.name, processes.cause(slot.child)
        orphans.end(self._pids())  # it may have left children that hold its port or its files
        if not slot.ready and slot.child.process.returncode >= 0:
            slot.failed_starts += 1
            if not slot.deaths and slot.service.mend():
                slot.child = self._spawn_again(slot)
                return
            if not slot.deaths or slot.failed_starts > 1:
                raise StackFailed(f"{name} ended while starting: {why}")
        slot.deaths.append(time.monotonic())
        if len(slot.deaths) == _DEATHS and slot.deaths[-1] - slot.deaths[0] <= _WINDOW_SECONDS:
            raise StackFailed(f"{name} died {_DEATHS} times within {_WINDOW_SECONDS:.0f} s: {why}")
        slot.child = self._spawn_again(slot)
        self._say(f"{name} died ({why}); started again as pid {slot.child.pid}")

    def _spawn_again(self, slot: _Slot) -> Child:
        slot.ready = False
        try:
            slot.service.prepare()
        except (Misconfigured, OSError) as error:
            raise StackFailed(f"{slot.service.name} cannot start again: {error}") from error
        return self._spawn(slot.service)

    def _spawn(self, service: Service) -> Child:
        log = self._logs / f"{service.name}.log"
        bound(log)
        child = processes.spawn(service, log)
        self._run.record(service.name, child.pid)
        return child

    def _slots(self) -> list[_Slot]:
        return [slot for group in self._groups for slot in group]

    def _pids(self) -> set[int]:
        return {slot.child.pid for slot in self._slots()}


def bound(log: Path) -> None:
    """Keep a log and its predecessor within a size. The writer appends, so it goes on in the emptied file."""
    try:
        if log.stat().st_size <= _LOG_BYTES:
            return
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        log.write_bytes(b"")
    except FileNotFoundError:
        pass
