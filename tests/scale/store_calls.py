"""What is asked of stores, of the copies in them, and of replicas that are repaired or move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from core.model import StoreState
from metadata.blobs.demotion import Home, Move
from metadata.blobs.references import Reference
from tests.metadata.made import HOUR, NO_TIME, RULES
from tests.scale.found import Call, Found


class StoreCalls(Found):
    """What is called, by a name for people."""

    def _stores(self) -> dict[str, Call]:
        m, now, middle = self._metadata, self._now, self.middle
        return {
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

    def _store_by_store(self) -> dict[str, Call]:
        m, middle, calls = self._metadata, self.middle, dict[str, Call]()
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


def _to_small(home: Home, references: Iterator[Reference], _said: Mapping[str, StoreState] | None) -> Move | None:
    for _ in references:
        pass
    return Move(1, "small", home.place)
