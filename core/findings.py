"""What an examination says: one sentence for each thing that was looked at, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Grade(StrEnum):
    OK = "ok"
    NOTE = "note"  # works, and somebody may want to know
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    grade: Grade
    detail: str
    advice: str | None = None
    """What to set or to do."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured, by names that carry their unit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `run` may raise a MillraceError, or never return: whoever calls it waits `seconds`."""

    name: str
    run: Callable[[], Finding]
    seconds: float = 8
    needed: bool = False
    """Where this one is a problem, the checks after it have nothing to look at."""


def ok(check: str, detail: str, **figures: float) -> Finding:
    return Finding(check, Grade.OK, detail, figures=figures)


def note(check: str, detail: str, advice: str | None = None, **figures: float) -> Finding:
    return Finding(check, Grade.NOTE, detail, advice, figures)


def problem(check: str, detail: str, advice: str | None = None, **figures: float) -> Finding:
    return Finding(check, Grade.PROBLEM, detail, advice, figures)
