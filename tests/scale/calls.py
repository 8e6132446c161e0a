"""Every method that jobs, gc, repair, promotion, eviction and deletes call, on a database made by filling.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from core.model import BlobFacts, FailureReason, JobState, Replica, StoreState
from core.sections import Retention
from metadata.blobs.collection import Held, Keeping
from metadata.blobs.references import Reference
from metadata.paths import AssetPath
from metadata.variants.variants import Stored
from tests.metadata.made import HOST, HOUR, NO_TIME, RULES, manifest, staged, want
from tests.scale.found import Call
from tests.scale.store_calls import StoreCalls


class Calls(StoreCalls):
    """What is called, by a name for people."""

    def all(self) -> dict[str, Call]:
        stores = {**self._stores(), **self._store_by_store(), **self._copies()}
        line = {**self._line(), **self._jobs(), **self._variants(), **self._failures()}
        return {**stores, **line, **self._rest()}

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

    def _variants(self) -> dict[str, Call]:
        m, reason = self._metadata, FailureReason("undecodable", "")
        asset_id = self._scalar("SELECT id FROM asset WHERE blob = :value LIMIT 1", self.lost)
        source = self._scalar("SELECT source FROM variant LIMIT 1")

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
        }

    def _failures(self) -> dict[str, Call]:
        m = self._metadata
        failure_id = self._scalar("SELECT id FROM failure LIMIT 1")
        asset_id = self._scalar("SELECT id FROM asset WHERE blob = :value LIMIT 1", self.lost)
        entry = staged(manifest("/q.png"), FailureReason("undecodable", ""))
        return {
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
        }

    def _rest(self) -> dict[str, Call]:
        m = self._metadata
        events = m.outbox.page(0, 100)
        taken = Replica(BlobFacts(self.shared, 5000, ""), "absent", 1)
        return {
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


def _main_only(
    _blob: BlobFacts, _held: Sequence[Held], references: Iterator[Reference], _said: Mapping[str, StoreState]
) -> frozenset[str]:
    """As where no rule names the others: only all of the references tell."""
    for _ in references:
        pass
    return frozenset({"main"})
