"""The composition root: what one process needs, built once after fork from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol
from uuid import UUID

from coordination.cache import Cache
from coordination.locks import Locks
from coordination.opening import open_cache, open_locks
from coordination.turns import Turns
from core.errors import Misconfigured, StoreUnavailable
from core.settings import Settings
from core.silence import Silence
from metadata.blobs.collection import Keeping
from metadata.facade import Metadata
from metadata.rules import Rules
from pipeline.installation import Installation, redis_prefix
from pipeline.lookups.cached_metadata import Lookups
from pipeline.rests import Rests
from pipeline.rules.demotion import Demotions
from pipeline.rules.in_force import rules_of
from pipeline.rules.placement import Placements
from pipeline.rules.profiles import Profiles
from pipeline.stores.failover import silence_of
from pipeline.stores.read_tracking import Accesses, open_accesses
from pipeline.stores.recognition import StoreRecognition
from pipeline.stores.states import StoreStates
from storage.interface import ObjectStore
from storage.local_copies import LocalCopies
from storage.recognised import RecognisedStore, bare
from storage.registry import open_stores, options_of
from storage.staging.keys import KeyIndex
from storage.staging.staging import Staging


class Hints(Protocol):
    """Wake-ups for the workers. Losing or doubling one changes nothing, so none of these ever raises or blocks."""

    def ingest(self, upload_id: UUID) -> None: ...

    def derive(self, source: bytes, *, interactive: bool) -> None: ...

    def repair(self) -> None: ...

    def close(self) -> None: ...


class NoHints:
    """For processes that do the work themselves."""

    def ingest(self, upload_id: UUID) -> None: ...

    def derive(self, source: bytes, *, interactive: bool) -> None: ...

    def repair(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Services:
    settings: Settings
    metadata: Metadata
    installation: Installation
    stores: Mapping[str, ObjectStore]
    """Usable while they are the ones that this installation filled."""
    recognitions: Mapping[str, StoreRecognition]
    placements: Placements
    demotions: Demotions
    profiles: Profiles
    hints: Hints
    locks: Locks
    cache: Cache
    accesses: Accesses
    rules: Rules
    """What this process believes of where bytes belong."""

    @property
    def keeping(self) -> Keeping:
        return Keeping(self.rules, self.placements.needed)

    @cached_property
    def turns(self) -> Turns:
        return Turns(self.locks)

    @cached_property
    def rests(self) -> Rests:
        return Rests(self.settings.home / "attempts", self.settings.work.backoff_cap_seconds)

    @cached_property
    def lookups(self) -> Lookups:
        return Lookups(self.metadata, self.cache, self.settings.cache)

    @cached_property
    def staging(self) -> Staging:
        """This host's staging: opened on first use, because a variants worker may live where there is none."""
        return Staging.open(self.settings)

    @cached_property
    def keys(self) -> KeyIndex:
        """Which uploads on this host came with an Idempotency-Key."""
        return KeyIndex(self.settings.staging_path)

    @cached_property
    def copies(self) -> LocalCopies:
        return LocalCopies(self.settings.cache_path / "originals", int(self.settings.variants.cache_bytes))

    @cached_property
    def _silences(self) -> Mapping[str, Silence]:
        return {name: silence_of(bare(store)) for name, store in self.stores.items()}

    @property
    def default_store(self) -> ObjectStore:
        return self.stores[self.settings.default_store]

    def store(self, name: str) -> ObjectStore:
        """
        Raises:
            StoreUnavailable: the settings of this process do not name it.
        """
        try:
            return self.stores[name]
        except KeyError:
            raise StoreUnavailable(f"the settings name no store {name!r}, which holds this object") from None

    def silence(self, name: str) -> Silence:
        """Of the store, as this process hears it.

        Raises:
            StoreUnavailable: as `store`.
        """
        self.store(name)
        return self._silences[name]

    def close(self) -> None:
        self.accesses.close()
        self.hints.close()
        self.locks.close()
        self.cache.close()
        for store in self.stores.values():
            store.close()
        self.metadata.close()


def build(
    settings: Settings,
    hints: Hints | None = None,
    *,
    pool_size: int = 4,
    database_seconds: float = 10,
    owns_stores: bool = False,
) -> Services:
    """Connects to nothing yet. `database_seconds` is how long a call waits for PostgreSQL. `owns_stores`: this process
    is the one that writes to stores with one owner.

    Raises:
        Misconfigured: a store, a profile or a rule cannot work as written.
    """
    if settings.database_url is None:
        raise Misconfigured(
            "database_url is not set: set MILLRACE_DATABASE_URL, or use the MILLRACE_HOME of a running stack"
        )
    metadata = Metadata.open(settings, pool_size=pool_size, deadline_seconds=database_seconds)
    prefix = partial(redis_prefix, settings)
    cache, hints = open_cache(settings, prefix), hints or NoHints()
    options = options_of(settings)
    states = StoreStates(metadata)
    placements = Placements.parse(settings, options, states, states.forget)
    rules = rules_of(settings, placements.stores)
    installation, opened = Installation(settings, metadata.inventory), open_stores(settings, owner=owns_stores)
    recognitions = {
        name: StoreRecognition(
            store,
            installation,
            metadata.stores,
            rules,
            looks_are_cheap=options[name].looks_are_cheap,
        )
        for name, store in opened.items()
    }
    return Services(
        settings=settings,
        metadata=metadata,
        installation=installation,
        stores={name: RecognisedStore(store, recognitions[name]) for name, store in opened.items()},
        recognitions=recognitions,
        placements=placements,
        demotions=Demotions.parse(settings, placements),
        profiles=Profiles.parse(settings),
        hints=hints,
        locks=open_locks(settings, prefix),
        cache=cache,
        accesses=open_accesses(settings, placements, Lookups(metadata, cache, settings.cache), hints.repair),
        rules=rules,
    )
