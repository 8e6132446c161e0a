"""What the fleet suffers, one after the other and some of it at once, and what has to hold in the end."""

from __future__ import annotations

import contextlib
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator

from tests.soak.fleet_of_hosts import burst, checks, loss
from tests.soak.fleet_of_hosts.fleet import Fleet
from tests.soak.fleet_of_hosts.host import Host
from tests.soak.fleet_of_hosts.load import Kept, Load
from tests.soak.fleet_of_hosts.services import NARROW

MINUTES = 20
"""Of `make soak`: a course for each, though one takes less."""
REST_SECONDS = 240
BACK_SECONDS = 120
ROUNDS = 4
"""Of faults at random."""


class Course:
    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.kept = Kept()
        self.suffered: Counter[str] = Counter()
        self.figures: dict[str, str] = {}
        self._seed = seed
        self._chance = random.Random(seed)
        self._began = time.monotonic()

    def run(self, courses: int) -> list[str]:
        """Everything that is broken, as sentences."""
        broken: list[str] = []
        for number in range(courses):
            try:
                if number:  # the checks gave it more
                    self.fleet.give_connections(NARROW)
                broken += self._one(number)
            except AssertionError as error:
                broken += str(error).splitlines()
            except Exception as error:
                broken.append("".join(traceback.format_exception(error)))
            if broken or self.kept.wrong:
                break
        return [*broken, *self.kept.wrong]

    def _one(self, number: int) -> list[str]:
        load = Load(self.fleet.url, self.kept, f"{number}", self._seed)
        broken: list[str] = []
        with load:
            time.sleep(20)
            for suffer in (
                self._hosts_die,
                self._networks_go,
                self._postgres_goes,
                self._store_goes,
                self._all_at_random,
            ):
                self._say(suffer.__name__)
                suffer()
                time.sleep(8)
            self._say("rolling restart")
            broken += self._rolling(load)
            self._say("burst")
            broken += burst.run(self)
            self._say("loss")
            broken += loss.run(self, number)
            time.sleep(10)
        self._say("rest")
        self._rest()
        self._say("checks")
        return broken + checks.violations(self)

    def _rest(self) -> None:
        ends = time.monotonic() + REST_SECONDS
        while left := checks.unfinished(self):
            assert time.monotonic() < ends, f"not at rest after {REST_SECONDS} s: {'; '.join(left)}"
            time.sleep(0.5)

    def _hosts_die(self) -> None:
        """Kill a whole ingest host, then a whole variants host; then an ingest host and two variants hosts at once,
        with Redis emptied."""
        for pair in (self.fleet.ingest[:1], self.fleet.variants[:1]):
            with self._dead(*pair):
                time.sleep(8)
        with self._dead(self._chance.choice(self.fleet.ingest), *self.fleet.variants[1:3]):
            self._flush()
            time.sleep(10)

    def _networks_go(self) -> None:
        """Cut off an ingest host for longer than it takes to count as lost, a variants host meanwhile, and kill
        Valkey."""
        with self._cut(self.fleet.ingest[1]):
            time.sleep(10)
            with self._cut(self.fleet.variants[3]), self._away("valkey"):
                time.sleep(10)
            self._flush()
            time.sleep(15)

    def _postgres_goes(self) -> None:
        """Restart PostgreSQL in order; then kill it for a while, with a host cut off."""
        self.fleet.postgres.stop()
        self.fleet.postgres.start()
        self.suffered["postgres restarted"] += 1
        time.sleep(10)
        with self._cut(self.fleet.ingest[2]), self._away("postgres"):
            time.sleep(8)

    def _store_goes(self) -> None:
        """Kill the S3 server for 20 s, and a host meanwhile."""
        with contextlib.ExitStack() as away:
            away.enter_context(self._away("s3"))
            time.sleep(8)
            with self._dead(self.fleet.ingest[0]):
                time.sleep(12)
                away.close()

    def _all_at_random(self) -> None:
        """Let two or three faults overlap, for several rounds."""
        for _ in range(ROUNDS):
            host, other = self._chance.choice(self.fleet.hosts), self._chance.choice(self.fleet.ingest)
            faults = [self._away(name) for name in ("postgres", "valkey", "s3")]
            faults += [self._dead(host)] if host is not other else []
            faults.append(self._cut(other))
            with contextlib.ExitStack() as over:
                for fault in self._chance.sample(faults, self._chance.randint(2, 3)):
                    over.enter_context(fault)
                    time.sleep(self._chance.uniform(0, 3))
                time.sleep(self._chance.uniform(2, 8))
            time.sleep(self._chance.uniform(0, 4))

    def _rolling(self, load: Load) -> list[str]:
        """Behind HAProxy, as a deployment does it: no request fails."""
        for host in self.fleet.ingest:
            self._await(host)
        time.sleep(10)  # until what the clients wait for is answered
        load.failed.clear()
        load.strict = True
        for host in self.fleet.ingest:
            host.terminate()
            host.wait()
            host.start()
            self._await(host)
            self.suffered["host restarted in turn"] += 1
        time.sleep(5)
        load.strict = False
        self.figures["failed while restarted in turn"] = f"{len(load.failed)}"
        return [f"rolling restart: {line}" for line in load.failed]

    @contextlib.contextmanager
    def _dead(self, *hosts: Host) -> Iterator[None]:
        for host in hosts:
            host.kill()
            self.suffered["host killed"] += 1
        try:
            yield
        finally:
            for host in hosts:
                host.start()
        for host in hosts:
            self._await(host)

    @contextlib.contextmanager
    def _away(self, name: str) -> Iterator[None]:
        """Kill a service, and start it again on what it has."""
        service = {"postgres": self.fleet.postgres, "valkey": self.fleet.valkey, "s3": self.fleet.s3}[name]
        service.kill()
        self.suffered[f"{name} killed"] += 1
        try:
            yield
        finally:
            service.start()

    @contextlib.contextmanager
    def _cut(self, host: Host) -> Iterator[None]:
        self.fleet.network.cut(host.name)
        self.suffered["host cut off"] += 1
        try:
            yield
        finally:
            self.fleet.network.heal(host.name)
        self._await(host)

    def _await(self, host: Host) -> None:
        if host in self.fleet.ingest:
            self.fleet.until(lambda: self.fleet.accepts(host), BACK_SECONDS, f"{host.name} accepts")
            time.sleep(1.5)  # until HAProxy has seen it

    def _flush(self) -> None:
        self.fleet.flush()
        self.suffered["redis emptied"] += 1

    def _say(self, what: str) -> None:
        answered = len(self.kept.accepted)
        print(f"  {time.monotonic() - self._began:>5.0f} s  {what:<20} {answered:>6} accepted", flush=True)

    def tell(self) -> None:
        """Print the figures."""
        figures: dict[str, object] = {
            "seconds": round(time.monotonic() - self._began),
            **self.suffered,
            "uploads sent": len(self.kept.sent),
            "accepted": len(self.kept.accepted),
            "deleted": sum(one.state == "deleted" for one in self.kept.accepted),
            **self.figures,
            **{f"slowest {what}": f"{seconds:.1f} s" for what, seconds in sorted(self.kept.slowest.items())},
            **dict(sorted(self.kept.answers.items())),
        }
        for name, figure in figures.items():
            print(f"  {name:<36} {figure!s:>9}")
        print(end="", flush=True)
