"""The rounds: kills of all kinds of jobs at once, damage that a verification mends, dry runs that change nothing."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.soak.many_stores import damage
from tests.soak.many_stores.commands import GC, MIGRATE, POLICY, VERIFY, Commands, Kind
from tests.soak.many_stores.installation import STORES, Installation
from tests.soak.many_stores.load import Load

KILLS = 5
"""Of each kind in a round."""
ORPHANS, BROKEN = 12, 4
STILL_SECONDS = 1.5
HEAL_SECONDS = 60.0
ATTEMPTS = 4 * KILLS

Words = tuple[str, ...]


@dataclass
class Rounds:
    found: Installation
    load: Load
    commands: Commands
    chance: random.Random
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    planted: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def one(self, number: int) -> None:
        """
        Raises:
            AssertionError: what is broken, where it makes no sense to go on.
        """
        self.planted |= damage.plant_orphans(self.found, self.chance, ORPHANS)
        self._at_once(number)
        self._rot()
        self._dry_runs()
        self.counts["rounds"] += 1

    def _at_once(self, number: int) -> None:
        """A migration, a verification, a collection and a demotion, each in a thread of its own."""
        source, target = self.chance.sample(STORES, 2)
        if number % 2 == 0:
            source = self._fullest(target)
        rate = ("--max-mb-s", f"{self.chance.uniform(0.1, 0.6):.2f}")
        how = rate if number % 4 == 3 else (*rate, "--delete-source")
        there, back = ("--from", source, "--to", target, *how), ("--from", target, "--to", source, *how)
        works: list[tuple[Kind, Iterator[Words]]] = [
            (MIGRATE, itertools.cycle([there, back])),
            (VERIFY, itertools.repeat(("--max-mb-s", "0.4"))),
            (GC, itertools.repeat(("--grace-hours", "0"))),
            (POLICY, itertools.repeat(("--max-mb-s", "0.05"))),
        ]
        threads = [
            threading.Thread(
                target=self._killed_and_ended, args=(kind, words, random.Random(f"{self.seed} {number} {kind.name}"))
            )
            for kind, words in works
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.counts["migrations"] += 1
        if self.chance.random() < 0.7:
            self._active(source)
            self._active(target)

    def _killed_and_ended(self, kind: Kind, works: Iterator[Words], chance: random.Random) -> None:
        """Kill it again and again. What a worker ended meanwhile is followed by the next work."""
        words, killed = next(works), 0
        try:
            for _ in range(ATTEMPTS):
                killed += self.commands.kill(kind, words, chance)
                if killed == KILLS:
                    break
                if not self.commands.is_unfinished(kind):
                    words = next(works)
            said = self.commands.end_of(kind, words)
        except Exception as error:
            self.wrong.append(f"{kind.name} {' '.join(words)}: {type(error).__name__}: {error}")
            return
        if kind is VERIFY and said["quarantined"]:
            self.wrong.append(f"verify puts into quarantine: {said['quarantined']}")

    def _rot(self) -> None:
        """Under load, too. Nothing is moved meanwhile: it would be right to remove the copy that was good."""
        with self.load.paused():
            broken = damage.damage(self.found, self.load, self.chance, BROKEN)
        self.counts["objects damaged"] += len(broken)
        self.commands.kill(VERIFY, ("--max-mb-s", "1"), self.chance)
        said = self.commands.end_of(VERIFY, ("--max-mb-s", "1"))
        self.counts["repaired, says verify"] += said["progress"]["repaired"]
        left = damage.until_whole(self.found, broken, HEAL_SECONDS)
        self.wrong += [f"not repaired: {one}" for one in left]
        self.counts["objects mended"] += len(broken) - len(left)
        for _, sent in broken.values():
            sent.state = "alive"

    def _dry_runs(self) -> None:
        """With orphans and what was deleted in the stores, and nobody at work."""
        source, target = self.chance.sample(STORES, 2)
        runs: list[Words] = [
            ("migrate", "--from", source, "--to", target, "--delete-source", "--dry-run", "--json"),
            ("gc", "--grace-hours", "0", "--dry-run", "--json"),
            ("policy", "--dry-run", "--json"),
        ]
        self.planted |= damage.plant_orphans(self.found, self.chance, ORPHANS)
        with self.load.paused(), self.found.workers_stopped():
            for sent in self.load.among("alive")[:2]:
                self.load.delete(sent)
            before = self._still()
            ends = [self.commands.run(*words) for words in runs]
            after = self.found.everything()
        self.wrong += [f"{words[0]} --dry-run: {one}" for words, one in zip(runs, ends, strict=True) if one.code]
        changed = [name for name in before if before[name] != after.get(name)]
        self.wrong += [f"a dry run changed {name}" for name in changed]
        self.counts["dry runs compared"] += len(runs)

    def _still(self) -> dict[str, object]:
        """What there is, once that does not change by itself."""
        last = self.found.everything()
        for _ in range(60):
            time.sleep(STILL_SECONDS)
            now = self.found.everything()
            if now == last:
                return now
            last = now
        raise AssertionError("with all load paused and the workers stopped, something goes on changing")

    def _active(self, store: str) -> None:
        ended = self.commands.run("state", store, "active")
        assert ended.code == 0, ended

    def _fullest(self, target: str) -> str:
        query = "SELECT store FROM replica WHERE store <> %s GROUP BY store ORDER BY count(*) DESC LIMIT 1"
        [(store,)] = self.found.stack.sql(query, target)
        return str(store)
