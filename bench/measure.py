"""What the parts share: a comparison of two things, and what the kernel knows of processes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

KIB, MIB = 1 << 10, 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
SETTLE_SECONDS = 1.5


def settle() -> None:
    """What was written before must not be paid for by what is measured next."""
    os.sync()
    time.sleep(SETTLE_SECONDS)


@dataclass
class Comparison:
    """Ours and the bare limit, measured in turn, so that a slow minute of the machine meets both.

    Who goes first in a pair finds the disk rested: seen to be worth a factor of two with large files. So the order
    alternates, and the number of rounds is even; with an odd one the median would be that of the order.
    """

    unit: str
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def round(self, ours: Callable[[], float], bare: Callable[[], float]) -> None:
        pair = [(self.ours, ours), (self.bare, bare)]
        for kept, measure in pair if len(self.ours) % 2 == 0 else reversed(pair):
            settle()
            kept.append(measure())

    @property
    def ratio(self) -> float:
        return median(self.ours) / median(self.bare)

    def as_object(self) -> dict[str, Any]:
        return {
            "ours": round(median(self.ours), 2),
            "bare": round(median(self.bare), 2),
            "ratio": round(self.ratio, 3),
            "unit": self.unit,
            "rounds": {"ours": [round(one, 2) for one in self.ours], "bare": [round(one, 2) for one in self.bare]},
        }


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, each with its command line."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found: dict[int, str] = {}
    frontier = [pid]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        for child in frontier:
            with suppress(OSError):
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
                found[child] = command.decode(errors="replace")
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """What they used, with their children that have ended."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(value) for value in fields[11:15])
    return total / TICKS


def start_peak(pids: Iterable[int]) -> dict[int, int]:
    """Forget the memory peaks of the past; returns what each process has now, in KiB."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return {pid: _memory(pid, "VmRSS") for pid in pids}


def peak_growth(before: dict[int, int]) -> float:
    """By how much the process that grew most has grown at its peak, in MiB."""
    return max(_memory(pid, "VmHWM") - size for pid, size in before.items()) / 1024


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


BUSY = 0.25
"""More load than this for each core, from others, and the figures say little."""


def machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on; `directory` is where both sides write."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / MIB, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": _filesystem(directory),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _filesystem(directory: Path) -> str:
    """The mount with the longest path above the directory."""
    mounts = [line.split() for line in _lines("/proc/self/mounts")]
    holding = [mount for mount in mounts if directory.resolve().is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else "unknown"
