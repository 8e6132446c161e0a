"""The names of segments: `catalog/<first>-<last>.ndjson`, twelve digits each.

A segment that was written is a number of its own; one that was merged has the numbers of all that went into it, and so
covers them: whoever meets both leaves the covered ones out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from storage.interface import Stored
from storage.object_keys import CATALOGUE, segment


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    first: int
    last: int
    size: int = 0

    @property
    def key(self) -> str:
        return f"{CATALOGUE}{self.first:012}-{self.last:012}.ndjson"

    def covers(self, other: Segment) -> bool:
        return (self.first, self.last) != (other.first, other.last) and (
            self.first <= other.first and other.last <= self.last
        )


def is_segment(key: str) -> bool:
    return segment(key) is not None


def parsed(found: Stored) -> Segment | None:
    numbers = segment(found.key)
    return None if numbers is None else Segment(*numbers, found.size)


def uncovered(segments: Iterable[Segment]) -> list[Segment]:
    """Those that count, in the order of their numbers."""
    kept: list[Segment] = []
    for one in sorted(segments, key=lambda one: (one.first, -one.last)):
        if not kept or not kept[-1].covers(one):
            kept.append(one)
    return kept
