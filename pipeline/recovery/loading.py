"""What was gathered becomes rows, or, where only that is wanted, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from core.errors import StoreUnavailable
from core.model import Asset, Replica
from metadata.journal.journal_records import Asked, Counter, Deleted, Recorded, Rendered
from metadata.journal.rebuild import Link, Loader
from pipeline.recovery.gathered import Gathered
from pipeline.recovery.gathering import Told
from pipeline.services import Services

LISTED = 10_000
"""Of what is missing, and so on: the counts are of all."""


@dataclass
class Loaded:
    """What a rebuild came to."""

    assets: int = 0
    deleted: int = 0
    replicas: int = 0
    variants: int = 0
    """Whose bytes are there."""
    to_render: int | None = None
    """Variants that are to be made anew. None: nobody looked."""
    lacking: int = 0
    """Replicas that rules ask for, and that are now made from others."""
    missing: int = 0
    """Assets whose original is in no store."""
    missing_assets: list[Asset] = field(default_factory=list)
    renumbered: list[tuple[Asset, int]] = field(default_factory=list)
    """Assets that have another number in their path than before, which they had."""


def load(services: Services, gathered: Gathered, loader: Loader, installed: UUID | None, told: Told) -> Loaded:
    return _Load(services, gathered, loader, told).run(installed)


def count(services: Services, gathered: Gathered, told: Told) -> Loaded:
    """What `load` would come to. Needs no database."""
    # What was said of stores is in the database, and a rebuild fills an empty one.
    placements = replace(services.placements, states=dict)
    load = _Load(replace(services, placements=placements), gathered, None, told)
    load.assets()
    for one in gathered.displaced():
        load.take([one])
        load.done.renumbered.append((one.asset, one.asset.entry))
    for batch in gathered.facts(Rendered):
        load.done.variants += len(gathered.replicas(one.output for one in batch))
    load.done.deleted = gathered.count(Deleted)
    return load.done


@dataclass
class _Load:
    services: Services
    gathered: Gathered
    loader: Loader | None
    told: Told
    done: Loaded = field(default_factory=Loaded)

    def run(self, installed: UUID | None) -> Loaded:
        assert self.loader is not None
        self.loader.begin(generation=self.gathered.generation, version=self.gathered.version, installed=installed)
        self.assets()
        for deleted in self.gathered.facts(Deleted):
            self.loader.tombstones(deleted)
            self.done.deleted += len(deleted)
        for counters in self.gathered.facts(Counter):
            self.loader.counters(counters)
        for one in self.gathered.displaced():
            self._renumber(self.loader, one)
        for asked in self.gathered.facts(Asked):
            links: list[Link] = [(one.asset_id, one.source, one.want) for one in asked]
            self.loader.links(links)
        self._variants(self.loader)
        self.done.to_render = self.loader.end()
        return self.done

    def assets(self) -> None:
        total = self.gathered.count(Recorded)
        for batch in self.gathered.facts(Recorded):
            self.take(batch)
            self.told("recording assets", self.done.assets, total)

    def take(self, batch: Sequence[Recorded]) -> None:
        """With the replicas of their originals."""
        found = self.gathered.replicas(one.asset.blob for one in batch)
        if self.loader is not None:
            self.loader.assets(batch)
            self._place(self.loader, found.values())
        lacking: dict[tuple[bytes, str], None] = {}
        standing: dict[tuple[bytes, str], str] = {}
        for one in batch:
            there = found.get(one.asset.blob.sha256, [])
            if not there:
                self.done.missing += 1
                if len(self.done.missing_assets) < LISTED:
                    self.done.missing_assets.append(one.asset)
            wanted, strange = self._asked_of(one.asset, there)
            fewer = max(len(wanted) - len(strange), 0) if there else 1
            lacking |= dict.fromkeys((one.asset.blob.sha256, name) for name in wanted[:fewer])
            standing |= {(one.asset.blob.sha256, store): name for store, name in zip(strange, wanted, strict=False)}
        if self.loader is not None:
            self.loader.lacking(list(lacking))
            self.loader.standing(standing)
        self.done.lacking += sum(sha256 in found for sha256, _ in lacking)
        self.done.assets += len(batch)

    def _asked_of(self, asset: Asset, there: Sequence[Replica]) -> tuple[list[str], list[str]]:
        """Stores that the rule of the asset names and that do not have its original, and stores that have it unasked.
        Those stand for the others, one for one: what lies elsewhere was moved there for good reasons."""
        try:
            plan = self.services.placements.plan(asset.path, asset.blob)
        except StoreUnavailable:
            return [], []
        held = [one.store for one in there]
        wanted = [name for name in dict.fromkeys((*plan.now, *plan.later)) if name not in held]
        return wanted, sorted(name for name in held if name not in plan.stores)

    def _renumber(self, loader: Loader, one: Recorded) -> None:
        entry = loader.next_entry(one.asset.path)
        self.take([replace(one, asset=replace(one.asset, entry=entry))])
        loader.note(one.asset.id)
        self.done.renumbered.append((one.asset, entry))

    def _variants(self, loader: Loader) -> None:
        total, seen = self.gathered.count(Rendered), 0
        for batch in self.gathered.facts(Rendered):
            found = self.gathered.replicas(one.output for one in batch)
            ready = loader.rendered([one for one in batch if one.output.sha256 in found])
            self._place(loader, (found[sha256] for sha256 in dict.fromkeys(one.output.sha256 for one in ready)))
            self.done.variants += len(ready)
            seen += len(batch)
            self.told("recording variants", seen, total)

    def _place(self, loader: Loader, found: Iterable[Sequence[Replica]]) -> None:
        replicas = [one for several in found for one in several]
        loader.replicas(replicas)
        self.done.replicas += len(replicas)
