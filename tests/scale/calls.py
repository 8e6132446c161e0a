"""Every method that jobs, gc, repair, promotion, eviction and deletes call, on a database made by filling.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from core.model import BlobFacts, FailureReason, JobState, Replica, StoreState
from core.sections import Retention
from metadata.blobs.collection import Held, Keeping
from metadata.blobs.demotion import Filter, Home, Move
from metadata.blobs.references import Reference
from metadata.facade import Metadata
from metadata.paths import AssetPath
from metadata.variants.variants import Stored
from tests.metadata.made import HOST, HOUR, NO_TIME, RULES, manifest, staged, want
from tests.scale.filling import LOST, SHARED

Call = Callable[[], object]

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


class Calls:
    """What is called, by a name for people."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._now = datetime.now(UTC)
        self.middle = b"\x80" + bytes(31)
        self.old = Filter(None, None, "*", self._now, self._now)
        self.shared, self.lost = self._scalar(f"SELECT {SHARED}"), self._scalar(f"SELECT {LOST}")
        self.paths = self._column("SELECT path_text FROM asset WHERE blob = :value ORDER BY id LIMIT 4", self.shared)

    def all(self) -> dict[str, Call]:
        return {**self._stores(), **self._copies(), **self._line(), **self._jobs(), **self._rest()}

    def _scalar(self, statement: str, value: object = None) -> Any:
        return self._column(statement, value)[0]

    def _column(self, statement: str, value: object = None) -> list[Any]:
        values = {} if value is None else {"value": value}
        query = text(statement)
        return self._metadata.database.read(
            lambda connection: [
                bytes(one) if isinstance(one, memoryview) else one for one in connection.scalars(query, values)
            ]
        )

    def _replica(self, where: str) -> Replica:
        query = text(f"SELECT blob, store, generation FROM replica WHERE {where} ORDER BY blob LIMIT 1")
        row = self._metadata.database.read(lambda connection: connection.execute(query).one())
        size = self._scalar("SELECT size FROM blob WHERE sha256 = :value", bytes(row.blob))
        return Replica(BlobFacts(bytes(row.blob), size, "image/jpeg"), row.store, row.generation)

    def _stores(self) -> dict[str, Call]:
        m, now, middle = self._metadata, self._now, self.middle
        calls: dict[str, Call] = {
            "stores.states": m.stores.states,
            "inventory.installation": m.inventory.installation,
            "inventory.make_installation": m.inventory.make_installation,
            "inventory.stores": m.inventory.stores,
            "inventory.last_generation": m.inventory.last_generation,
            "inventory.stale": lambda: m.inventory.stale(["main", "small", "hot"], now, 100),
            "inventory.stale: small": lambda: m.inventory.stale(["small"], now, 100),
            "inventory.stale: never": lambda: m.inventory.stale(["main", "small"], now, 100, (None, middle, "main")),
            "inventory.stale: later": lambda: m.inventory.stale(
                ["main", "small"], now, 100, (now - timedelta(days=2, hours=2), middle, "main")
            ),
            "inventory.sick": lambda: m.inventory.sick(["main", "small"], (middle, ""), 1),
            "inventory.is_sick": lambda: m.inventory.is_sick(self._replica("state = 'missing'")),
            "inventory.quarantined": lambda: m.inventory.quarantined(["main", "small"], 100),
            "inventory.unnamed": lambda: m.inventory.unnamed("main", [(middle, n) for n in range(500)]),
            "inventory.discard": lambda: m.inventory.discard("main", [(middle, n) for n in range(500)]),
            "inventory.deleted": lambda: m.inventory.deleted("main", [(middle, n) for n in range(500)]),
            "inventory.count_garbage": lambda: m.inventory.count_garbage(["small", "hot"]),
            "stores.is_new": lambda: [m.stores.is_new(name) for name in ("main", "hot", "absent")],
            "stores.lacks_identity": lambda: [m.stores.lacks_identity(name) for name in ("main", "hot", "absent")],
            "stores.identified": lambda: m.stores.identified("main", RULES),
            "stores.abandon": lambda: m.stores.abandon("small"),
            "stores.set_state": lambda: m.stores.set_state(StoreState("absent", "draining", "main")),
            "stores.drop": lambda: m.stores.drop(self._replica("store = 'small'"), self._replica("store = 'main'")),
        }
        for name in ("main", "small", "hot", "absent"):
            calls |= {
                f"stores.count: {name}": lambda name=name: m.stores.count(name, middle),
                f"stores.page: {name}": lambda name=name: m.stores.page(name, middle, 20),
                f"inventory.count: {name}": lambda name=name: m.inventory.count(name, middle),
                f"inventory.healthy: {name}": lambda name=name: m.inventory.healthy(name, middle, 100),
                f"demotion.count: {name}": lambda name=name: m.demotion.count(name, middle, [self.old]),
                f"demotion.stretch: {name}": lambda name=name: m.demotion.stretch(name, middle, 1000),
                f"demotion.homes: {name}": lambda name=name: self._homes(name),
                f"demotion.leave_to_gc: {name}": lambda name=name: self._left(name),
            }
        return calls

    def _homes(self, name: str) -> list[Home]:
        last = self._metadata.demotion.stretch(name, self.middle, 1000)
        return [] if last is None else self._metadata.demotion.homes(name, self.middle, last, [self.old])

    def _left(self, name: str) -> int:
        last = self._metadata.demotion.stretch(name, self.middle, 1000)
        return 0 if last is None else self._metadata.demotion.leave_to_gc(name, self.middle, last)

    def _copies(self) -> dict[str, Call]:
        m, some = self._metadata, self._column("SELECT sha256 FROM blob WHERE size > 400000 LIMIT 100")
        return {
            "tiers.read": lambda: m.tiers.read(some, NO_TIME),
            "tiers.promote": lambda: m.tiers.promote(some, "hot", up_to=1 << 50, max_bytes=1 << 40),
            "tiers.promote: full": lambda: m.tiers.promote(some[:3], "hot", up_to=1 << 22, max_bytes=1 << 40),
            "tiers.evict": lambda: m.tiers.evict("hot", 1 << 40, RULES),
            "tiers.evict: nothing": lambda: m.tiers.evict("absent", 0, RULES),
            "tiers.drop": lambda: m.tiers.drop(self._replica("store = 'hot'")),
            "repairs.due": lambda: m.repairs.due(20, HOUR),
            "repairs.is_any_due": m.repairs.is_any_due,
            "repairs.mark": lambda: m.repairs.mark(
                self._replica("store = 'small' AND state = 'healthy'"), "missing", ""
            ),
            "repairs.begin": lambda: m.repairs.begin(self._replica("store = 'small' AND state = 'missing'")),
            "repairs.failed": lambda: m.repairs.failed(
                self._replica("store = 'small' AND state = 'missing'"), "", NO_TIME
            ),
            "repairs.done": lambda: m.repairs.done(self._replica("store = 'small' AND state = 'missing'")),
            "repairs.verified": lambda: m.repairs.verified(self._replica("store = 'small' AND state = 'healthy'")),
            "repairs.ensure": lambda: m.repairs.ensure(some[5], "small", HOUR),
            "demotion.choose": lambda: m.demotion.choose(self._home(some[7]), _to_small),
            "demotion.choose: shared": lambda: m.demotion.choose(self._home(self.shared), _to_small),
            "demotion.begin": lambda: m.demotion.begin(self._home(some[7]), Move(1, "small", "main"), HOUR),
            "demotion.finish": self._finish,
        }

    def _home(self, sha256: bytes) -> Home:
        [found] = [one for one in self._metadata.blobs.replicas(sha256) if one.store == "main"]
        return Home(found, "main", self._now, self._now, [])

    def _finish(self) -> bool:
        home, move = self._home(self.shared), Move(1, "small", "main")
        there, _ = self._metadata.demotion.begin(home, move, HOUR)
        self._metadata.repairs.done(there)
        return self._metadata.demotion.finish(home, there, move, _to_small, RULES)

    def _line(self) -> dict[str, Call]:
        m, at = self._metadata, [AssetPath.from_text(path) for path in self.paths]
        asset_id = self._scalar("SELECT id FROM asset LIMIT 1")
        return {
            "blobs.reserve": lambda: m.blobs.reserve([(BlobFacts(b"r" * 32, 1, ""), "main")], HOUR),
            "blobs.renew": lambda: m.blobs.renew(self._replica("state = 'pending'")),
            "blobs.known": lambda: m.blobs.known([self.shared, self.lost]),
            "blobs.replicas": lambda: m.blobs.replicas(self.shared),
            "blobs.placed": lambda: m.blobs.placed([self._replica("state = 'pending'")]),
            "blobs.collect": lambda: m.blobs.collect(100, Keeping(RULES, _main_only)),
            "blobs.collect: shared": self._collect_shared,
            "blobs.give_up_pending": lambda: m.blobs.give_up_pending(HOUR, 100),
            "blobs.garbage": lambda: m.blobs.garbage(500, "main"),
            "blobs.garbage: small": lambda: m.blobs.garbage(500, "small"),
            "blobs.garbage: any": lambda: m.blobs.garbage(500),
            "blobs.garbage_stores": m.blobs.garbage_stores,
            "blobs.forget": lambda: m.blobs.forget([one.id for one in m.blobs.garbage(500, "main")]),
            "assets.find": lambda: m.assets.find(asset_id),
            "assets.find_soon": lambda: m.assets.find_soon(asset_id, 60),
            "assets.by_id": lambda: m.assets.by_id(asset_id),
            "assets.newest": lambda: m.assets.newest(AssetPath.from_text("/p1")),
            "assets.entry": lambda: m.assets.entry(AssetPath.from_text("/p1"), 3),
            "assets.was": lambda: m.assets.was(AssetPath.from_text("/p1"), 3),
            "assets.record": self._record,
            "assets.delete": lambda: m.assets.delete(at[0], 0, grace=HOUR, purge=False),
            "assets.delete: purge": lambda: m.assets.delete(at[1], 0, grace=HOUR, purge=True),
            "assets.delete: purge later": lambda: m.assets.delete(at[0], 0, grace=HOUR, purge=True),
        }

    def _record(self) -> None:
        made = manifest("/new.png")
        facts = BlobFacts(made.sha256, made.size, "")
        [reserved] = self._metadata.blobs.reserve([(facts, "main")], HOUR)
        recorded = self._metadata.assets.record(made, [reserved.replica], [want("a")], later=["small"], lease=HOUR)
        variants = self._metadata.variants
        leased = variants.renew(recorded.leased, HOUR)
        [output] = self._metadata.blobs.reserve([(BlobFacts(b"o" * 32, 1, ""), "main")], HOUR)
        variants.finish([Stored(leased[0], [output.replica])])

    def _collect_shared(self) -> None:
        """With a second replica, so that the rules are asked."""
        self._metadata.repairs.ensure(self.shared, "small", HOUR)
        self._metadata.assets.delete(AssetPath.from_text(self.paths[2]), 0, grace=NO_TIME, purge=True)
        self._metadata.blobs.collect(1000, Keeping(RULES, _main_only))

    def _turn(self) -> None:
        token = self._metadata.turns.take("gc", HOUR)
        assert token is not None
        self._metadata.turns.renew("gc", token, HOUR)
        self._metadata.turns.free("gc", token)

    def _placed(self) -> None:
        page = [facts.sha256 for facts, _ in self._metadata.placing.page(self.middle, 500)]
        self._metadata.placing.references([*page, self.shared])

    def _jobs(self) -> dict[str, Call]:
        jobs = self._metadata.jobs
        held = jobs.create("verify", {})

        def work() -> None:
            one = jobs.take(HOUR, held.id)
            assert one is not None
            jobs.renew(one, HOUR)
            jobs.give_back(jobs.advance(one, {}, {}, HOUR), "", NO_TIME)
            again = jobs.take(HOUR, held.id)
            assert again is not None
            jobs.settle(jobs.put_back(again, NO_TIME), JobState.DONE) if again.wish else jobs.put_back(again, NO_TIME)
            last = jobs.take(HOUR, held.id)
            assert last is not None
            jobs.settle(last, JobState.DONE)

        return {
            "jobs.create": lambda: jobs.create("gc", {}),
            "jobs.find": lambda: jobs.find(held.id),
            "jobs.newest": lambda: jobs.newest(10),
            "jobs.unfinished": lambda: jobs.unfinished("verify"),
            "jobs.rested": lambda: jobs.rested("demotion", 60),
            "jobs.take": work,
            "jobs.renew": lambda: jobs.renew(held, HOUR),
            "jobs.wish": lambda: jobs.wish(held.id, "pause"),
        }

    def _rest(self) -> dict[str, Call]:
        m, reason = self._metadata, FailureReason("undecodable", "")
        failure_id = self._scalar("SELECT id FROM failure LIMIT 1")
        asset_id = self._scalar("SELECT id FROM asset WHERE blob = :value LIMIT 1", self.lost)
        source = self._scalar("SELECT source FROM variant LIMIT 1")
        events = m.outbox.page(0, 100)
        entry = staged(manifest("/q.png"), reason)
        taken = Replica(BlobFacts(self.shared, 5000, ""), "absent", 1)

        def settle() -> None:
            asset = m.assets.by_id(asset_id)
            assert asset is not None
            one = m.variants.want(asset.id, asset.blob.sha256, want("b"))
            [leased] = m.variants.lease(asset.blob.sha256, HOUR, one=one.id)
            m.variants.give_back([leased], delay=NO_TIME)
            [leased] = m.variants.lease(asset.blob.sha256, HOUR)
            m.variants.failed([leased], reason, final=True, delay=NO_TIME)
            m.variants.retry(one.id)
            m.variants.forget(one.id)

        return {
            "variants.want": settle,
            "variants.of_asset": lambda: m.variants.of_asset(asset_id),
            "variants.find": lambda: m.variants.find(asset_id, b"r"),
            "variants.path_of": lambda: m.variants.path_of(self.shared),
            "variants.states": lambda: m.variants.states([UUID(int=1)]),
            "variants.due_sources": lambda: m.variants.due_sources(100),
            "variants.lease": lambda: m.variants.lease(source, HOUR),
            "variants.remake": lambda: m.variants.remake(self.lost),
            "failures.put": lambda: m.failures.put(entry),
            "failures.page": lambda: m.failures.page(None, 50),
            "failures.page: next": lambda: m.failures.page(m.failures.page(None, 50).after, 50),
            "failures.find": lambda: m.failures.find(failure_id),
            "failures.look_again": lambda: m.failures.look_again(asset_id),
            "failures.wish": lambda: m.failures.wish(failure_id, "retry"),
            "failures.wishes": lambda: m.failures.wishes(HOST),
            "failures.remove": lambda: m.failures.remove(failure_id),
            "failures.reconcile": lambda: m.failures.reconcile(HOST, [entry]),
            "uploads.announce": lambda: m.uploads.announce(HOST, [entry]),
            "uploads.find": lambda: m.uploads.find(entry.manifest.id, host_lost=HOUR),
            "uploads.mark_lost_hosts": lambda: m.uploads.mark_lost_hosts(HOUR),
            "outbox.page": lambda: m.outbox.page(0, 100),
            "outbox.facts": lambda: m.outbox.facts(events),
            "outbox.forget": lambda: m.outbox.forget([one.id for one in events]),
            "outbox.last": m.outbox.last,
            "turns": self._turn,
            "rules.in_force": m.rules.in_force,
            "rules.are_in_force": lambda: m.rules.are_in_force(RULES),
            "rules.put_in_force": lambda: m.rules.put_in_force(RULES),
            "placing.page": lambda: m.placing.page(self.middle, 200),
            "placing.references": self._placed,
            "placing.leave_to_gc": lambda: m.placing.leave_to_gc([self.shared]),
            "restored.go_beyond": lambda: m.restored.go_beyond(1),
            "restored.known": lambda: m.restored.known([self.shared]),
            "restored.held": lambda: m.restored.held("main", [self.shared]),
            "restored.take": lambda: m.restored.take(taken, None, HOUR),
            "retention.prune": lambda: m.retention.prune(Retention()),
        }


def _to_small(home: Home, references: Iterator[Reference], _said: Mapping[str, StoreState] | None) -> Move | None:
    for _ in references:
        pass
    return Move(1, "small", home.place)


def _main_only(
    _blob: BlobFacts, _held: Sequence[Held], references: Iterator[Reference], _said: Mapping[str, StoreState]
) -> frozenset[str]:
    """As where no rule names the others: only all of the references tell."""
    for _ in references:
        pass
    return frozenset({"main"})
