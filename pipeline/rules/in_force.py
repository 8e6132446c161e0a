"""The rules of a process in a form that processes can compare, and what they say of what lies in the stores.

What belongs to them is what decides where bytes go and which of them may go: the rules themselves, and of each store
its name, its tier, its state and what it takes of copies. Nothing of it is secret.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.errors import Unavailable
from core.model import BlobFacts
from core.settings import Settings
from metadata.blobs.collection import Held
from metadata.facade import Metadata
from metadata.rules import PlacementRules, Rules
from pipeline.rules.placement import Placements
from storage.options import StoreOptions

OF_A_STORE: Final = {"tier", "state", "promote_up_to", "promote_max_bytes"}


class OtherRules(Unavailable):
    """Another process, or this one after it got other settings, can do it."""

    code = "other-rules"


def rules_of(settings: Settings, stores: Mapping[str, StoreOptions]) -> Rules:
    """Without what has its default, so that a new version of Millrace has the rules of the last one."""
    said = {
        "default_store": settings.default_store,
        "placement": [rule.model_dump(mode="json", exclude_defaults=True) for rule in settings.placement],
        "demotion": [rule.model_dump(mode="json", exclude_defaults=True, by_alias=True) for rule in settings.demotion],
        "stores": {
            name: options.model_dump(mode="json", exclude_defaults=True, include=OF_A_STORE)
            for name, options in stores.items()
        },
    }
    return Rules(hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest(), said)


def difference(rules: PlacementRules, own: Rules) -> str | None:
    """Return what a person is told where other rules than these are in force.

    Raises:
        DatabaseUnavailable: nothing is known.
    """
    found = rules.in_force()
    if found is None or found[0].fingerprint == own.fingerprint:
        return None
    others, since = found
    names = [name for name in sorted({*own.said, *others.said}) if own.said.get(name) != others.said.get(name)]
    return (
        f"this host has other rules than those in force since {since:%Y-%m-%d %H:%M} UTC ({', '.join(names)}), and"
        " removes no replica by them"
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """A blob that assets hold."""

    blob: BlobFacts
    lacking: Sequence[str]
    """Stores that shall have it and have no good one."""
    unrecorded: Sequence[str]
    """Of these, those where nothing even says that it is missing."""
    surplus: bool
    """One has it that no rule names."""


def compare(
    metadata: Metadata, placements: Placements, page: Sequence[tuple[BlobFacts, Sequence[Held]]]
) -> Iterator[Compared]:
    references, said = metadata.placing.references([facts.sha256 for facts, _ in page]), placements.states()
    for facts, held in page:
        holders = references[facts.sha256]
        if not holders:
            continue
        wanted = {name for one in holders for name in placements.plan(one.path, facts, variant=one.variant).stores}
        recorded = {name for one in held for name in (one.store, one.place)}
        good = {name for one in held if one.healthy for name in (one.store, one.place)}
        kept = placements.needed(facts, held, holders, said)
        surplus = any(one.store not in kept for one in held)
        yield Compared(facts, sorted(wanted - good), sorted(wanted - recorded), surplus)
