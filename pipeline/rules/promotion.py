"""Hot stores that take copies of what is read from colder ones, as many as their settings allow.

A read wishes for a copy (pipeline/stores/read_tracking.py), the rows keep the bound (metadata/blobs/promotion.py), and
repair makes it (pipeline/replicas/repair.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.rules.placement import Placements
from storage.options import TIERS, StoreOptions

SHARE = 10
"""Of the whole bound, the largest object may take one part in so many."""


@dataclass(frozen=True, slots=True)
class Taker:
    """A store that takes copies."""

    name: str
    up_to: int
    max_bytes: int


def takers(placements: Placements) -> list[Taker]:
    """Those that take new objects now; the one that is read first first."""
    found = []
    for name, options in sorted(placements.stores.items(), key=lambda item: (item[1].priority, item[0])):
        if options.promote_up_to is not None and placements.state(name) == "active":
            largest = options.promote_max_bytes or options.promote_up_to // SHARE
            found.append(Taker(name, int(options.promote_up_to), int(largest)))
    return found


def any_could_take(stores: Mapping[str, StoreOptions]) -> bool:
    """Whatever is said of them meanwhile, by their settings."""
    return any(options.promote_up_to is not None and options.state == "active" for options in stores.values())


def is_colder(stores: Mapping[str, StoreOptions], name: str) -> bool:
    """Is a store one whose objects are worth a copy?"""
    return name in stores and stores[name].tier != TIERS[0]


def surplus_bound(placements: Placements, name: str) -> int | None:
    """How many bytes of copies a store may keep. None: it is left as it is."""
    state, options = placements.state(name), placements.stores[name]
    if state == "read-only":
        return None
    return int(options.promote_up_to or 0) if state == "active" else 0
