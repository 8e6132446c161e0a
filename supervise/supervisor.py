"""Keeps a stack of children running: what dies is started again, for ever, and never takes another one with it.

A child that dies again soon is started again after a pause that grows with every death, and shows among the host's
troubles. Only a start that cannot work ends the stack: a child that ends by itself before it was ever ready. In every
case `stop` leaves no descendant behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core import troubles
from core.errors import MillraceError, Misconfigured
from core.loops import IN_A_ROW, Guard, rest
from core.parent_death import adopt_orphans
from supervise import processes, subreaper
from supervise.processes import Child, Service
from supervise.run_directory import RunDirectory
from supervise.shutdown_signal import Stop

_TICK_SECONDS = 0.2
_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.5, 30.0
"""Before a start, from the second death in a row on."""
_CALM_SECONDS = 60.0
"""A child that was ready for so long has recovered: its next death is the first one again."""
_LOG_BYTES = 16 << 20
LOG_CHECK_SECONDS = 60.0


class StackFailed(MillraceError):
    """The stack ended because of one of its children; the detail is the cause."""

    code = "stack-failed"


@dataclass
class _Slot:
    service: Service
    child: Child
    was_ready: bool = False
    """Ever: until then its end may mean that it cannot work at all."""
    ready_at: float | None = None
    mended: bool = False
    deaths: int = 0
    """In a row."""
    dying_since: float = 0.0
    start_at: float | None = None
    """When to start it again; None: it was not seen to have ended."""


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
            StackFailed: a child ended by itself before it was ever ready, or one of these stays silent.
        """
        wanted = {service.name for service in services}
        deadline = time.monotonic() + seconds
        while waiting := [slot for slot in self._slots() if slot.service.name in wanted and slot.ready_at is None]:
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
            StackFailed: a child ended by itself before it was ever ready.
        """
        children = Guard("supervisor.children", most_rest_seconds=5, lets_through=(StackFailed,))
        parent, logs = Guard("supervisor.parent"), Guard("supervisor.logs")
        logs_checked = time.monotonic()
        while not stop.wait(_TICK_SECONDS):
            children.call(self.look_after)
            parent.call(others)
            if time.monotonic() - logs_checked > LOG_CHECK_SECONDS:
                logs_checked = time.monotonic()
                logs.call(self._bound_logs)

    def look_after(self) -> None:
        """
        Raises:
            StackFailed: a child ended by itself before it was ever ready.
        """
        for slot in self._slots():
            if slot.start_at is not None:
                if time.monotonic() >= slot.start_at:
                    self._start_again(slot)
            elif slot.child.has_ended():
                self._bury(slot)
            elif slot.ready_at is None:
                if slot.service.is_ready(slot.child):
                    slot.was_ready, slot.ready_at = True, time.monotonic()
            elif slot.deaths and time.monotonic() - slot.ready_at > _CALM_SECONDS:
                slot.deaths = 0
                troubles.forget(f"process.{slot.service.name}")
        subreaper.end(self._pids())

    def stop(self) -> None:
        for group in reversed(self._groups):
            processes.stop(slot.child for slot in group)
            subreaper.end(self._pids())
            for slot in group:
                self._run.forget(slot.service.name)
        self._groups.clear()
        subreaper.end(())

    def _bury(self, slot: _Slot) -> None:
        """Start a child again that has ended, at once or later."""
        name, why = slot.service.name, processes.cause(slot.child)
        subreaper.end(self._pids())  # it may have left children that hold its port or its files
        if not slot.was_ready and slot.child.process.returncode >= 0:
            if slot.mended or not slot.service.mend():
                raise StackFailed(f"{name} ended while starting: {why}")
            slot.mended = True
            self._start_again(slot)
            return
        when = self._put_off(slot, why)
        if slot.deaths == 1:
            self._start_again(slot)
        self._say(f"{name} died ({why}); {when}")

    def _put_off(self, slot: _Slot, why: str) -> str:
        """Put off the start that comes next; returns when that is, in words for people."""
        now = time.monotonic()
        slot.deaths += 1
        if slot.deaths == 1:
            slot.dying_since = now
        pause = rest(slot.deaths - 1, _PAUSE_SECONDS, _MOST_PAUSE_SECONDS)
        slot.start_at = now + pause
        if slot.deaths >= IN_A_ROW:
            troubles.note(f"process.{slot.service.name}", slot.deaths, now - slot.dying_since, "process-died", why)
        return f"it starts again in {pause:g} s" if pause else "it starts again"

    def _start_again(self, slot: _Slot) -> None:
        slot.ready_at = slot.start_at = None
        try:
            slot.service.prepare()
            slot.child = self._spawn(slot.service)
        except (Misconfigured, OSError) as error:
            self._say(f"{slot.service.name} cannot start ({error}); {self._put_off(slot, str(error))}")

    def _bound_logs(self) -> None:
        for log in self._logs.glob("*.log"):
            bound(log)

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
