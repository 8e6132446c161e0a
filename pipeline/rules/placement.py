"""Which stores hold which bytes: the `[[placement]]` rules of the settings, and in which order replicas are read.

The first rule that fits decides; without one it is `default_store` alone. A store that is draining or read-only takes
nothing new: its successor takes its place, or `default_store`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from core.errors import Misconfigured, StoreUnavailable
from core.model import BlobFacts, Replica, StoreState
from core.patterns import path_pattern
from core.sections import Placement
from core.settings import Settings
from metadata.blobs.collection import Held
from metadata.blobs.references import Reference
from storage.options import TIERS, StoreOptions


@dataclass(frozen=True, slots=True)
class Plan:
    """The stores that shall hold a blob."""

    now: Sequence[str]
    """Before any row names the blob; the upload waits for all of them."""
    later: Sequence[str] = ()
    """In the background, from one that has it."""

    @property
    def stores(self) -> frozenset[str]:
        return frozenset((*self.now, *self.later))


@dataclass(frozen=True)
class Placements:
    rules: Sequence[tuple[re.Pattern[str], Placement]]
    default_store: str
    stores: Mapping[str, StoreOptions]
    states: Callable[[], Mapping[str, StoreState]] = dict
    """What was said of stores while everything runs, and not long ago; it goes before the settings. It decides nothing:
    who begins anything in a store is refused there by what is said now."""
    forget_states: Callable[[], object] = dict
    """Call this after such a refusal, and plan again."""

    @classmethod
    def parse(
        cls,
        settings: Settings,
        stores: Mapping[str, StoreOptions],
        states: Callable[[], Mapping[str, StoreState]] = dict,
        forget_states: Callable[[], object] = dict,
    ) -> Placements:
        """
        Raises:
            Misconfigured: a rule names a store that is not there, or names one twice; `default_store` takes nothing;
                the catalogue would lie in an archive.
        """
        if stores[settings.default_store].state != "active":
            raise Misconfigured(
                f"default_store: {settings.default_store!r} is {stores[settings.default_store].state}, and takes what"
                " stores that are not active would have taken: name an active one"
            )
        home = settings.catalogue.store or settings.default_store
        if stores[home].archives:
            key = "catalogue.store" if settings.catalogue.store else "default_store"
            raise Misconfigured(
                f"{key}: {home!r} writes into an archive, and the catalogue is read often: name another"
            )
        for number, rule in enumerate(settings.placement, start=1):
            named = [rule.store, *rule.replicas]
            for name in named:
                if name not in stores:
                    known = ", ".join(stores)
                    raise Misconfigured(f"placement {number}: no store is called {name!r} (there is: {known})")
            if len(set(named)) != len(named):
                raise Misconfigured(f"placement {number}: replicas lie in different stores, and one is named twice")
        rules = [(path_pattern(rule.match), rule) for rule in settings.placement]
        return cls(rules, settings.default_store, stores, states, forget_states)

    def plan(self, path: str, blob: BlobFacts, *, variant: bool = False) -> Plan:
        """Where a blob goes that is, or is a variant of, the asset at `path`."""
        return self._plan(path, blob, variant, self.states())

    def _plan(self, path: str, blob: BlobFacts, variant: bool, said: Mapping[str, StoreState]) -> Plan:
        rule = next((rule for pattern, rule in self.rules if _fits(pattern, rule, path, blob, variant)), None)
        if rule is None:
            return Plan((self._writable(self.default_store, said),))
        first = self._writable(rule.store, said)
        others = [name for name in dict.fromkeys(self._writable(one, said) for one in rule.replicas) if name != first]
        return Plan((first, *others)) if rule.replication == "sync" else Plan((first,), others)

    def named(self, path: str, blob: BlobFacts, said: Mapping[str, StoreState], *, variant: bool) -> frozenset[str]:
        """The stores whose replica of the blob has a reason to stay: also one that takes nothing new."""
        rule = next((rule for pattern, rule in self.rules if _fits(pattern, rule, path, blob, variant)), None)
        written = self._plan(path, blob, variant, said).stores
        return written | ({self.default_store} if rule is None else {rule.store, *rule.replicas})

    def needed(
        self, blob: BlobFacts, held: Sequence[Held], references: Iterable[Reference], said: Mapping[str, StoreState]
    ) -> frozenset[str]:
        """Of the stores that hold the blob, those that a rule of one of the assets names, or that stand for one it
        names and which does not have it itself; with what is `said` of stores."""
        places = frozenset(name for one in held for name in (one.store, one.place))
        named: frozenset[str] = frozenset()
        for one in references:
            named |= places & self.named(one.path, blob, said, variant=one.variant)
            if named == places:
                break
        there = {one.store for one in held if one.healthy}
        standing = {one.store for one in held if one.place in named - there}
        heirs = {self._writable(name, said) for name in standing}
        return frozenset(one.store for one in held if one.store in named | standing | heirs)

    def in_reading_order(self, replicas: Iterable[Replica]) -> list[Replica]:
        """By tier, by priority, the one first whose bytes were checked last."""
        return sorted(replicas, key=self._rank)

    def _rank(self, replica: Replica) -> tuple[int, int, float, str]:
        options = self.stores.get(replica.store)
        verified = -(replica.verified_at or datetime.min.replace(tzinfo=UTC)).timestamp()
        if options is None:
            return len(TIERS), 0, verified, replica.store
        return TIERS.index(options.tier), options.priority, verified, replica.store

    def heir(self, name: str, said: Mapping[str, StoreState]) -> str:
        """The store itself, or who takes its place by what `said` says of stores."""
        return self._writable(name, said)

    def state(self, name: str) -> str:
        """Of a store, as it is said to be, or as the settings have it."""
        said = self.states()
        return said[name].state if name in said else self.stores[name].state

    def _writable(self, name: str, said: Mapping[str, StoreState]) -> str:
        """The store itself, or who takes its place, or the place of that one."""
        for candidate in self._heirs(name, said):
            state = said[candidate].state if candidate in said else self.stores[candidate].state
            if state == "active":
                return candidate
        raise StoreUnavailable(f"{name!r} takes nothing new, and no active store takes its place")

    def _heirs(self, name: str, said: Mapping[str, StoreState]) -> Iterator[str]:
        passed: set[str] = set()
        heir: str | None = name
        while heir is not None and heir in self.stores and heir not in passed:
            yield heir
            passed.add(heir)
            heir = said[heir].successor if heir in said else None
        yield self.default_store


def _fits(pattern: re.Pattern[str], rule: Placement, path: str, blob: BlobFacts, variant: bool) -> bool:
    return (
        rule.kind in (None, "variant" if variant else "original")
        and (rule.min_bytes is None or blob.size >= rule.min_bytes)
        and (rule.max_bytes is None or blob.size <= rule.max_bytes)
        and fnmatchcase(blob.media_type, rule.media_type)
        and pattern.fullmatch(path) is not None
    )
