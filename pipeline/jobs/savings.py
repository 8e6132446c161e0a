"""What the `[[demotion]]` rules would move now, and what that saves. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from core.sections import GIB
from metadata.blobs.demotion import Home, Move
from pipeline.jobs.counting import count_all
from pipeline.jobs.demotion import STRETCH, choice, filters
from pipeline.services import Services


@dataclass(frozen=True, slots=True)
class Planned:
    """What a rule would move."""

    rule: int
    source: str
    target: str
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Filling:
    """What a store holds, now and after."""

    bytes: int
    bytes_after: int
    price: float | None
    """Of 2^30 bytes for a month."""

    @property
    def per_month(self) -> float | None:
        return None if self.price is None else self.bytes / GIB * self.price

    @property
    def per_month_after(self) -> float | None:
        return None if self.price is None else self.bytes_after / GIB * self.price


@dataclass(frozen=True, slots=True)
class Survey:
    rules: Sequence[Planned]
    stores: Mapping[str, Filling]
    """Those that rules name."""

    @property
    def saved_per_month(self) -> float | None:
        """None: not every store says what it costs."""
        saved = 0.0
        for one in self.stores.values():
            if one.per_month is None or one.per_month_after is None:
                return None
            saved += one.per_month - one.per_month_after
        return saved if self.stores else None


def survey(services: Services, watch: Callable[[int], None] = lambda looked_at: None) -> Survey:
    """`watch` hears how many homes were looked at so far."""
    at = services.metadata.now()
    rules = services.demotions.rules
    planned = {rule.number: Planned(rule.number, rule.given.source, rule.given.target) for rule in rules}
    change = {name: 0 for rule in rules for name in (rule.given.source, rule.given.target)}
    looked_at = 0
    for name in services.demotions.sources():
        for home, move in _moves(services, name, at):
            looked_at += 1
            watch(looked_at)
            if move is None:
                continue
            size, known = home.replica.blob.size, planned[move.rule]
            planned[move.rule] = replace(known, objects=known.objects + 1, bytes=known.bytes + size)
            change[name] -= size
            change[move.target] += 0 if any(one.store == move.target for one in home.others) else size
    return Survey(list(planned.values()), {name: _filling(services, name, grown) for name, grown in change.items()})


def _moves(services: Services, name: str, at: datetime) -> Iterator[tuple[Home, Move | None]]:
    demotion, after, fitting = services.metadata.demotion, b"", filters(services, name, at)
    while fitting and (last := demotion.stretch(name, after, STRETCH)) is not None:
        for home in demotion.homes(name, after, last, fitting):
            yield home, demotion.choose(home, choice(services, at))
        after = last


def _filling(services: Services, name: str, grown: int) -> Filling:
    held = count_all([name], services.metadata.stores.count).total_bytes
    return Filling(held, held + grown, services.placements.stores[name].price_per_gib_month)
