"""Settings that are good by themselves and contradict each other: one line for each pair, in the place where all are.

A new setting whose sense depends on another one has its line here. Backends check their own options.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from core.sections import Demotion, Placement
    from core.settings import Settings

_HOLDS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"below": operator.lt, "at most": operator.le}


@dataclass(frozen=True, slots=True)
class Pair:
    low: str
    relation: str
    """`below` or `at most`."""
    high: str
    why: str


PAIRS: Final = (
    Pair("work.lease_renewal_seconds", "below", "work.lease_seconds", "or every lease is lost before it is renewed"),
    Pair("work.soft_time_limit_seconds", "below", "work.time_limit_seconds", "or no task is told before it is killed"),
    Pair("work.solo_seconds", "below", "work.soft_time_limit_seconds", "or a task ends before an attempt may"),
    Pair("work.backoff_seconds", "at most", "work.backoff_cap_seconds", "which is the longest pause"),
    Pair(
        "work.sweep_seconds", "below", "work.host_lost_seconds", "or a host that is well is given up between two beats"
    ),
    Pair("work.maintenance_seconds", "below", "work.host_lost_seconds", "or it is seen too late that a host is back"),
    Pair("limits.max_decoded_bytes", "at most", "work.solo_memory", "or what is accepted cannot be decoded alone"),
    Pair(
        "retention.ingests_days", "at most", "retention.tombstones_days", "or a deleted asset comes back with its key"
    ),
    Pair("retention.failures_days", "at most", "retention.tombstones_days", "or a retry brings back what was deleted"),
)


def found(settings: Settings) -> Iterator[str]:
    """Yield one sentence for each contradiction, with both names and what would be right."""
    for pair in PAIRS:
        low, high = _value(settings, pair.low), _value(settings, pair.high)
        if not _HOLDS[pair.relation](low, high):
            yield (
                f"{pair.low} = {low:.12g} and {pair.high} = {high:.12g} contradict each other: "
                f"{pair.low} must be {pair.relation} {pair.high}, {pair.why}"
            )
    rules: Mapping[str, Sequence[Placement | Demotion]] = {
        "placement": settings.placement,
        "demotion": settings.demotion,
    }
    for section, given in rules.items():
        for number, rule in enumerate(given, 1):
            if rule.min_bytes is not None and rule.max_bytes is not None and rule.min_bytes > rule.max_bytes:
                yield (
                    f"{section}, rule {number}: min_bytes = {rule.min_bytes:d} and max_bytes = {rule.max_bytes:d} "
                    "contradict each other: min_bytes must be at most max_bytes, or nothing fits the rule"
                )


def _value(settings: Settings, name: str) -> float:
    section, _, key = name.partition(".")
    value: float = getattr(getattr(settings, section), key)
    return value
