"""Parts (b) and (c): from the first byte sent to the last variant ready, and where the CPU time goes.

Uploads are not staged before: the client sends while the line works, and time runs from its first byte. Sources are
about 450 KiB, no two alike, so that nothing is found already there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psycopg2

from bench import pictures
from bench.bare_line import PROCESSES, VARIANTS, BareLine, StageSeconds
from bench.load import upload_all
from bench.measure import Comparison, cpu_seconds
from bench.servers import WEB_THREADS, WEB_WORKERS, Millrace

ROUNDS = 4
ASSETS = 100
WARM_ASSETS = 12
CONNECTIONS = 4
PATIENCE_SECONDS = 120
POLL_SECONDS = 0.05

STAGES: Mapping[str, tuple[str, ...]] = {
    "web": ("gunicorn",),
    "ingest worker": ("celery", "ingest@"),
    "variants worker": ("celery", "variants@"),
    "interactive worker": ("celery", "interactive@"),
    "maintenance worker": ("celery", "maintenance@"),
    "beat": ("celery", "beat"),
    "sweep": ("millrace", "sweep"),
    "PostgreSQL": ("postgres",),
    "Valkey or Redis": ("-server",),
}
"""The processes of each, by words of their command lines."""


def config() -> str:
    """Two processes do all the work: those of the ingest worker, which render what they have just stored."""
    profiles = "".join(
        f"[profiles.{name}]\n" + "".join(f"{key} = {value!r}\n" for key, value in parameters.items())
        for name, parameters in VARIANTS.items()
    )
    return (
        f"[web]\nworkers = {WEB_WORKERS}\nthreads = {WEB_THREADS}\n"
        f"[work]\ningest_concurrency = {PROCESSES}\nvariants_concurrency = 1\n"
        f'{profiles}[[paths]]\nmatch = "/**"\neager = {list(VARIANTS)!r}\n'
    )


@dataclass
class Line:
    assets: Comparison
    cpu_ms: dict[str, float]
    """By process, in our line, for each asset."""
    rendering_ms: dict[str, float]
    """By stage, in the bare loop."""


def measure(directory: Path, advance: Callable[[str], None]) -> Line:
    sources = pictures.photographs()
    comparison = Comparison("assets/s")
    used: list[dict[str, float]] = []
    rendered: list[StageSeconds] = []
    with Millrace(directory / "line", config()) as ours, BareLine(directory / "bare-line") as bare:
        _ours(ours, _fresh(sources, WARM_ASSETS))
        bare.run(_fresh(sources, WARM_ASSETS))
        for number in range(ROUNDS):
            advance(f"line: round {number + 1}")
            comparison.round(
                lambda: _counted(ours, _fresh(sources, ASSETS), used),
                lambda: _timed(bare, _fresh(sources, ASSETS), rendered),
            )
    return Line(comparison, _mean_ms(used), _mean_ms(rendered))


def _fresh(sources: Sequence[bytes], count: int) -> list[bytes]:
    return [pictures.unique(sources[number % len(sources)]) for number in range(count)]


def _timed(bare: BareLine, bodies: Sequence[bytes], rendered: list[StageSeconds]) -> float:
    rate, stages = bare.run(bodies)
    rendered += stages
    return rate


def _counted(ours: Millrace, bodies: Sequence[bytes], used: list[dict[str, float]]) -> float:
    before = _cpu(ours)
    rate = _ours(ours, bodies)
    after = _cpu(ours)
    used.append({stage: (after[stage] - before[stage]) / len(bodies) for stage in STAGES})
    return rate


def _cpu(ours: Millrace) -> dict[str, float]:
    return {stage: cpu_seconds(ours.pids(*words)) for stage, words in STAGES.items()}


def _ours(ours: Millrace, bodies: Sequence[bytes]) -> float:
    with closing(psycopg2.connect(ours.services["database_url"])) as connection:
        connection.autocommit = True
        expected = _ready(connection) + len(bodies) * len(VARIANTS)
        began = time.monotonic()
        arguments = (ours.port, f"bench/{time.time_ns()}", bodies)
        client = threading.Thread(target=upload_all, args=arguments, kwargs={"connections": CONNECTIONS})
        client.start()
        while _ready(connection) < expected:
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise RuntimeError(f"the line is not through after {PATIENCE_SECONDS} s")
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        client.join()
    return len(bodies) / seconds


def _ready(connection: psycopg2.extensions.connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM asset_variant JOIN variant ON id = variant_id WHERE state = 'ready'")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


def _mean_ms(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The stages one picture has and another does not (sizes differ) count where they are."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: round(1000 * fmean(row[name] for row in rows if name in row), 2) for name in names}
