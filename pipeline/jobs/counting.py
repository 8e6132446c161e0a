"""How much a job has before it: counted stretch by stretch, since one sum over a large store ends in no time-out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from metadata.blobs.stretches import Counted
from pipeline.jobs.runner import Step

COUNTING: Final = "counting"
"""In the cursor of a job that has not counted to the end yet."""

Count = Callable[[str, bytes], Counted]
"""What there is in the next stretch of a store."""


@dataclass(slots=True)
class Tally:
    number: int = 0
    """Of the store."""
    after: str = ""
    total: int = 0
    total_bytes: int = 0


def counted(
    cursor: Mapping[str, Any], stores: Sequence[str], count: Count, told: Callable[[Tally], Mapping[str, Any]]
) -> Generator[Step, None, Tally]:
    """Goes on where the cursor has come to; `told` is the progress. One stretch and its sum are one statement each, and
    a store that has no more than one takes no step."""
    tally = Tally(**cursor.get(COUNTING, {}))
    while tally.number < len(stores):
        found = count(stores[tally.number], bytes.fromhex(tally.after))
        tally.total += found.objects
        tally.total_bytes += found.size
        if found.last is None:
            tally.number, tally.after = tally.number + 1, ""
        else:
            tally.after = found.last.hex()
            yield Step({COUNTING: asdict(tally)}, told(tally))
    return tally


def count_all(stores: Sequence[str], count: Count) -> Tally:
    """Count all at once, for callers that wait for it."""
    steps = counted({}, stores, count, lambda _: {})
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            tally: Tally = ended.value
            return tally
