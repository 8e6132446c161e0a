"""Four stores, and kill -9 of migrations, verifications, collections and demotions under live uploads, reads and
deletes.

In rounds, as many as bring twenty kills of each kind, and more while `--minutes` last; then the load ends, everything
comes to rest, and all that clients were told is compared with what there is, rows and stores each way. Then all is
moved into one store, the others must be empty, and new uploads must lie where the rules say.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.soak.many_stores import checks
from tests.soak.many_stores.commands import GC, KINDS, MIGRATE, POLICY, VERIFY, Commands
from tests.soak.many_stores.installation import FOLDERS, MARKER, STORES, Installation, installed
from tests.soak.many_stores.load import ALIVE, Load, body
from tests.soak.many_stores.rounds import Rounds

KILLS = 20
HOME = "near"
FRESH, FRESH_FROM = 5, 50_000
"""So many uploads into each folder at the end, of bytes that nobody sent before."""


AGED_SECONDS = 120.0
"""So long what ages may take to get where it ends."""


def run(minutes: float, seed: int) -> list[str]:
    """Until there were `KILLS` of each kind and `minutes` have passed."""
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-"))
    print(f"seed {seed}, logs in {directory}", flush=True)
    began = time.monotonic()
    with installed(directory) as found:
        commands, load = Commands(found.stack, directory), Load(found.stack, seed)
        rounds = Rounds(found, load, commands, random.Random(seed), seed)
        try:
            broken = _run(rounds, began + minutes * 60)
        except AssertionError as error:
            broken = [*str(error).splitlines(), *rounds.wrong, *load.wrong]
        except Exception as error:
            broken = [*traceback.format_exception(error), *rounds.wrong, *load.wrong]
        counts = load.counts + commands.counts + rounds.counts
        counts["seconds"] = int(time.monotonic() - began)
        _tell(seed, counts, broken)
        (directory / "notes").write_text("\n".join(commands.notes))
    if not broken:
        shutil.rmtree(directory)
    return broken


def _run(rounds: Rounds, until: float) -> list[str]:
    found, load, commands = rounds.found, rounds.load, rounds.commands
    with load:
        found.stack.until(lambda: len(load.among("alive")) >= ALIVE // 3, 120, "there is something to work on")
        number = 0
        while time.monotonic() < until or min(_kills(commands).values()) < KILLS:
            rounds.one(number)
            number += 1
            print(f"round {number}: {load.counts['accepted']} accepted, {dict(_kills(commands))}", flush=True)
            if rounds.wrong or load.wrong:
                break
    checks.at_rest(found)
    commands.end_of(GC, ("--grace-hours", "0"))
    checks.at_rest(found)
    rounds.counts["checked by SHA-256"] = len(load.among("alive"))
    rounds.counts["found gone"] = len(load.among("deleted"))
    rounds.counts["orphans planted"] = len(rounds.planted)
    [(resumed, followers)] = found.stack.sql("SELECT count(*), coalesce(sum(fence - 1), 0) FROM job WHERE fence > 1")
    rounds.counts["jobs resumed"], rounds.counts["times they were"] = int(resumed), int(followers)
    return [*rounds.wrong, *checks.violations(found, load), *_gathered(rounds), *_placed(rounds)]


def _gathered(rounds: Rounds) -> list[str]:
    """All of it in one store, and nothing left in the others."""
    found = rounds.found
    for store in STORES:
        if store != HOME:
            rounds.commands.end_of(MIGRATE, ("--from", store, "--to", HOME, "--delete-source"))
    checks.at_rest(found)
    left = [f"{key} is left in {store}" for store in STORES if store != HOME for key in _objects(found, store)]
    verified = rounds.commands.end_of(VERIFY, ())
    lost = [f"verify: {one}" for one in (verified["quarantined"], verified["unknownStores"]) if one]
    return [*left, *lost, *(f"gathered: {line}" for line in checks.violations(found, rounds.load))]


def _placed(rounds: Rounds) -> list[str]:
    """With all stores active, new bytes lie where the rules say, and nowhere else."""
    for store in STORES:
        ended = rounds.commands.run("state", store, "active")
        assert ended.code == 0, ended
    time.sleep(2)  # until it is heard everywhere
    numbers = iter(range(FRESH_FROM, FRESH_FROM + FRESH * len(FOLDERS)))
    for folder in FOLDERS:
        for place in range(FRESH):
            number = next(numbers)
            rounds.load.upload(f"/{folder}/fresh/{place}", body(number), f"fresh {number}")
    checks.at_rest(rounds.found)
    aged = time.monotonic() + AGED_SECONDS
    while (wrong := checks.misplaced(rounds.found, "fresh")) and time.monotonic() < aged:
        rounds.commands.end_of(POLICY, ())
    checks.at_rest(rounds.found)
    return [*wrong, *(f"placed: {line}" for line in checks.violations(rounds.found, rounds.load))]


def _objects(found: Installation, store: str) -> list[str]:
    return [key for key in found.holdings(store) if key != MARKER]


def _kills(commands: Commands) -> dict[str, int]:
    return {kind.name: commands.counts[f"{kind.name} kills"] for kind in KINDS}


def _tell(seed: int, counts: Counter[str], broken: list[str]) -> None:
    for name, count in sorted(counts.items()):
        print(f"  {name:<36} {count:>7,}")
    print(json.dumps({"seed": seed, **dict(sorted(counts.items())), "broken": len(broken)}), flush=True)
