"""Which methods of the metadata there are, and which of them were called."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from metadata.facade import Metadata

PARTS = (
    "blobs", "repairs", "stores", "tiers", "demotion", "jobs", "inventory", "restored", "retention", "rules", "placing",
    "turns",
)  # fmt: skip
"""Of the metadata: those that jobs, gc, repair, promotion and eviction go by. Of these no method is left out."""


def methods(metadata: Metadata) -> set[str]:
    """All that there are: `part.method`."""
    return {
        f"{part}.{name}"
        for part in PARTS
        for name, _ in inspect.getmembers(getattr(metadata, part), inspect.ismethod)
        if not name.startswith("_")
    }


def watch(metadata: Metadata) -> set[str]:
    """Grows by every method that is called from now on."""
    called: set[str] = set()

    def watched(name: str, method: Callable[..., object]) -> Callable[..., object]:
        def call(*values: object, **named: object) -> object:
            called.add(name)
            return method(*values, **named)

        return call

    for name in methods(metadata):
        part, _, method = name.partition(".")
        own = getattr(metadata, part)
        setattr(own, method, watched(name, getattr(own, method)))
    return called
