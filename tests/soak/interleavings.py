"""What may be done to the replicas of a blob, side by side on a real PostgreSQL: any two in every order of their
messages, then any three in orders by chance while `--minutes` last. `make test` has those with one switch.

Two that send so many messages that there are more than `MOST` orders are played in so many of them, by chance.
"""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from metadata import migrate
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from tests.metadata.acts import WORLDS
from tests.metadata.interleaving import Act, ByChance, Course, Every, Schedule, stops
from tests.metadata.playing import play
from tests.metadata.small_world import Rows, World

MOST = 250
NAMED = 20
"""So many broken promises are told one by one."""

Acts = Sequence[tuple[str, Act]]


def run(minutes: float, seed: int) -> list[str]:
    chance, until = random.Random(seed), time.monotonic() + minutes * 60
    counts: Counter[str] = Counter()
    broken: list[str] = []
    print(f"seed {seed}", flush=True)
    with _served() as url, stops():
        world, course = World.open(url), Course(url)
        for name, (rows, acts_of) in WORLDS.items():
            acts = list(acts_of(world).items())
            pairs = list(itertools.combinations_with_replacement(acts, 2))
            for pair in pairs:
                counts += _all_orders(partial(_played, course, world, broken, rows, pair), chance)
            print(f"{name}: {len(pairs)} pairs, {dict(counts)}", flush=True)
        while time.monotonic() < until:
            rows, acts_of = chance.choice(list(WORLDS.values()))
            triple = chance.choices(list(acts_of(world).items()), k=3)
            _played(course, world, broken, rows, triple, ByChance(chance))
            counts["triples"] += 1
        world.close()
        course.close()
    print(dict(counts), flush=True)
    return broken if len(broken) <= NAMED else [*broken[:NAMED], f"and {len(broken) - NAMED} more"]


def _all_orders(played: Callable[[Schedule], None], chance: random.Random) -> Counter[str]:
    every, orders = Every(), 0
    while True:
        played(every)
        orders += 1
        if not every.again():
            return Counter({"in every order": 1, "orders": orders})
        if orders == MOST:
            break
    for _ in range(MOST):
        played(ByChance(chance))
    return Counter({"in orders by chance": 1, "orders": 2 * MOST})


def _played(course: Course, world: World, broken: list[str], rows: Rows, acts: Acts, schedule: Schedule) -> None:
    world.begin(rows)
    try:
        play(course, world, acts, schedule)
    except Exception as error:
        broken.append(f"{' beside '.join(name for name, _ in acts)}: {error!r}")
        print(broken[-1], flush=True)


@contextmanager
def _served() -> Iterator[str]:
    """Serve a migrated database, in memory where there is a tmpfs, and yield its URL."""
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-", dir=memory if memory.is_dir() else None))
    server = Postgres(directory / "postgres", directory / "run", durable=False)
    child = start(server, directory / "postgres.log")
    try:
        migrate.upgrade(server.url_of("postgres"))
        yield server.url_of("postgres")
    finally:
        stop([child])
        shutil.rmtree(directory, ignore_errors=True)
