"""Every statement on a database of 2,000,000 replicas: none reads a large table, or many rows, or takes 100 ms. Ends by
itself, without regard to `--minutes`."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from database.transactions import Database
from metadata import migrate
from metadata.facade import Metadata
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from tests.scale.calls import Calls
from tests.scale.filling import fill
from tests.scale.methods import methods, watch
from tests.scale.plans import Plans

REPLICAS = 2_000_000
MS = 100
ROWS = 60_000
TRIES = 3
"""Of what took too long: this machine has others to serve, too."""


def run(_minutes: float, _seed: int) -> list[str]:
    directory = Path(tempfile.mkdtemp(prefix="millrace-scale-"))
    server = Postgres(directory / "postgres", directory / "run", durable=False)
    child = start(server, directory / "postgres.log")
    try:
        url = server.url_of("postgres")
        migrate.upgrade(url)
        began = time.monotonic()
        fill(url, REPLICAS)
        print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
        metadata = Metadata.of(Database(url, pool_size=4, deadline_seconds=600))
        try:
            return check(metadata)
        finally:
            metadata.close()
    finally:
        stop([child])
        shutil.rmtree(directory)


def check(metadata: Metadata) -> list[str]:
    every = methods(metadata)
    called = watch(metadata)
    calls, plans = Calls(metadata).all(), Plans.of(metadata)
    broken: list[str] = []
    for name, call in calls.items():
        plans.of_call()
        for _ in range(TRIES):
            call()
            seen = plans.of_call()
            faults = [fault for one in seen if (fault := one.fault(rows=ROWS, ms=MS))]
            if not any(fault.startswith("takes") for fault in faults):
                break
        broken += [f"{name}: {fault}" for fault in faults]
        slowest, rows = max((one.ms for one in seen), default=0.0), max((one.read for one in seen), default=0)
        print(f"  {name:<28} {len(seen):>3} statements, at most {slowest:7.1f} ms, {rows:>6,} rows", flush=True)
    return broken + [f"{name} is not covered" for name in sorted(every - called)]
