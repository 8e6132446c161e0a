"""Which bytes move to a colder store, and where: the `[[demotion]]` rules of the settings.

Of the rules of a store the first decides that fits what is known of the bytes and all assets that hold them through
this store. Bytes that an asset wants in several stores never come to lie in fewer: a home moves only to a store that
none of these assets wants as well, and that stands for no other.

A rule rests while one of its stores is not active: one that drains is emptied by its migration, one that is read-only
keeps what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter

from core import sections
from core.errors import Misconfigured
from core.model import StoreState
from core.patterns import path_pattern
from core.settings import Settings
from metadata.blobs.demotion import Filter, Home, Move
from metadata.blobs.references import Reference
from pipeline.rules.placement import Placements
from storage.options import TIERS, StoreOptions

Said = Mapping[str, StoreState]


@dataclass(frozen=True)
class Rule:
    number: int
    """From 1, in the order of the settings."""
    given: sections.Demotion
    match: re.Pattern[str]
    pinned: Sequence[re.Pattern[str]]

    @classmethod
    def parse(cls, number: int, given: sections.Demotion) -> Rule:
        return cls(number, given, path_pattern(given.match), [path_pattern(one) for one in given.pinned])

    def filter(self, at: datetime) -> Filter:
        """What of it can be asked of the database for many at once. `at` is the time that counts as now."""
        given = self.given
        older, unread = timedelta(days=given.older_than_days), timedelta(days=given.unread_days)
        return Filter(given.min_bytes, given.max_bytes, given.media_type, at - older, at - unread)

    def fits_bytes(self, home: Home, at: datetime) -> bool:
        blob, wanted = home.replica.blob, self.filter(at)
        return (
            (wanted.min_bytes is None or blob.size >= wanted.min_bytes)
            and (wanted.max_bytes is None or blob.size <= wanted.max_bytes)
            and fnmatchcase(blob.media_type, wanted.media_type)
            and home.stored_at <= wanted.stored_before
            and home.read_at <= wanted.read_before
        )

    def fits(self, one: Reference, at: datetime) -> bool:
        return (
            self.given.kind in (None, "variant" if one.variant else "original")
            and one.accepted_at <= at - timedelta(days=self.given.older_than_days)
            and self.match.fullmatch(one.path) is not None
            and not any(pattern.fullmatch(one.path) for pattern in self.pinned)
        )


@dataclass(frozen=True)
class Demotions:
    rules: Sequence[Rule]
    placements: Placements

    @classmethod
    def parse(cls, settings: Settings, placements: Placements) -> Demotions:
        """
        Raises:
            Misconfigured: a rule names a store that is not there, moves nowhere or to a hotter one, or to one that
                takes nothing; rules lead back to where they began.
        """
        for number, rule in enumerate(settings.demotion, start=1):
            if fault := _fault(rule, placements.stores):
                raise Misconfigured(f"demotion {number}: {fault}")
        _refuse_circles(settings.demotion)
        return cls([Rule.parse(number, rule) for number, rule in enumerate(settings.demotion, start=1)], placements)

    def sources(self) -> list[str]:
        """The stores that rules move from, in their order."""
        return list(dict.fromkeys(rule.given.source for rule in self.rules))

    def of(self, store: str, said: Said | None = None) -> list[Rule]:
        """Return rules that move from a store, if both ends are active by what is said of stores, or was lately."""
        said = self.placements.states() if said is None else said

        def active(name: str) -> bool:
            return (said[name].state if name in said else self.placements.stores[name].state) == "active"

        mine = [rule for rule in self.rules if rule.given.source == store]
        return [rule for rule in mine if active(store) and active(rule.given.target)]

    def choose(
        self, home: Home, references: Iterator[Reference], at: datetime, said: Said | None = None
    ) -> Move | None:
        """Return where a home is to move, by what is said of stores, or was lately. Assets that want the blob in other
        stores only have no say, unless no asset wants it here: then all of them hold it through what there is."""
        said = self.placements.states() if said is None else said
        blob, here = home.replica.blob, frozenset({home.replica.store, home.place})
        through = [one for one in self.of(home.replica.store, said) if one.fits_bytes(home, at) and _is_free(home, one)]
        anyhow: Sequence[Rule] = ()
        wanted = frozenset[str]()
        for number, one in enumerate(references):
            anyhow = anyhow if number else through
            named = self.placements.named(one.path, blob, said, variant=one.variant)
            if named & here:
                wanted |= named & here
                through = [rule for rule in through if rule.given.target not in named and rule.fits(one, at)]
            elif not wanted:
                anyhow = [rule for rule in anyhow if rule.given.target not in named and rule.fits(one, at)]
            if not through or len(wanted) > 1:  # what serves two stores stays
                return None
        rules = through if wanted else anyhow
        if not rules:
            return None
        return Move(rules[0].number, rules[0].given.target, next(iter(wanted), home.place))


def _is_free(home: Home, rule: Rule) -> bool:
    """Where the rule leads, nothing stands for a store but this one's."""
    own = rule.given.target, home.place, home.replica.store
    return all(one.place in own for one in home.others if one.store == rule.given.target)


def _fault(rule: sections.Demotion, stores: Mapping[str, StoreOptions]) -> str | None:
    for name in (rule.source, rule.target):
        if name not in stores:
            return f"no store is called {name!r} (there is: {', '.join(stores)})"
    source, target = stores[rule.source], stores[rule.target]
    if rule.source == rule.target:
        return f"from and to are both {rule.source!r}"
    if TIERS.index(target.tier) < TIERS.index(source.tier):
        return f"{rule.target!r} is {target.tier}, hotter than {rule.source!r}, which is {source.tier}"
    if target.state != "active":
        return f"{rule.target!r} is {target.state}, and takes nothing new"
    return None


def _refuse_circles(rules: Sequence[sections.Demotion]) -> None:
    leads: dict[str, set[str]] = {}
    for rule in rules:
        leads.setdefault(rule.source, set()).add(rule.target)
    try:
        TopologicalSorter(leads).prepare()
    except CycleError as error:
        raise Misconfigured(f"demotion: rules lead in a circle: {' '.join(error.args[1])}") from None
