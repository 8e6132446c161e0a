"""A store that is stopped for a minute, and then answers 403 for a minute, under live uploads, reads and deletes."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.faults.silent_store import ordeal

SECONDS = 60.0


def run(minutes: float, seed: int) -> list[str]:
    """Once each; `minutes` changes nothing."""
    del minutes, seed
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-"))
    print(f"logs in {directory}", flush=True)
    broken: list[str] = []
    for figures in ordeal(directory, SECONDS):
        print(json.dumps(asdict(figures)), flush=True)
        broken += [f"{figures.fault}: {line}" for line in figures.broken]
        if not figures.accepted or not figures.replicas:
            broken.append(f"{figures.fault}: nothing was at stake")
    if not broken:
        shutil.rmtree(directory)
    return broken
