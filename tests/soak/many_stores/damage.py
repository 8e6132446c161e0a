"""What the test itself does to the stores: objects that nothing names, bits that rot, files that vanish."""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.soak.many_stores.installation import BUCKET, DIRECTORIES, PREFIX, Installation
from tests.soak.many_stores.load import Load, Sent

GENERATION = 1
"""Given out long ago, so that nothing can come to name it."""


def plant_orphans(found: Installation, chance: random.Random, count: int) -> set[str]:
    """Objects that look like ours, in several stores."""
    planted = set()
    for _ in range(count):
        body = chance.randbytes(chance.randrange(100, 3000))
        key = f"{hashlib.sha256(body).hexdigest()}.{GENERATION}"
        store = chance.choice(["near", "far", "cloud"])
        if store == "cloud":
            found.s3.client().put_object(Bucket=BUCKET, Key=PREFIX + key, Body=body)
        else:
            path = found.file(store, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        planted.add(key)
    return planted


def damage(found: Installation, load: Load, chance: random.Random, count: int) -> dict[str, tuple[str, Sent]]:
    """Originals of which another store has a good copy too: one of them rots or vanishes. Nobody is at work on them;
    they are `held` until they are whole again. Returns the broken keys, their stores and the uploads."""
    broken: dict[str, tuple[str, Sent]] = {}
    alive = load.among("alive")
    chance.shuffle(alive)
    for sent in alive:
        if len(broken) == count:
            break
        same = [one for one in load.sent if one.told.sha256 == sent.told.sha256 and one.state != "deleted"]
        where = _replicas(found, sent.told.sha256)
        spare = [store for store in where if store in DIRECTORIES and _is_kept_beside(where, store)]
        if len(same) > 1 or not spare or sent.told.path.startswith("/aging/"):
            continue
        store = chance.choice(spare)
        key = f"{sent.told.sha256}.{where[store].generation}"
        sent.state = "held"
        _break(found.file(store, key), found.home / "rotten", chance)
        broken[key] = store, sent
    return broken


def is_whole(found: Installation, sent: Sent, store: str) -> bool:
    """Has the store the right bytes under the key that its row names? A copy for faster reading may have gone."""
    where = _replicas(found, sent.told.sha256)
    if store not in where:
        return bool(where)
    return (
        hashlib.sha256(found.read(store, f"{sent.told.sha256}.{where[store].generation}")).hexdigest()
        == sent.told.sha256
    )


def until_whole(found: Installation, broken: dict[str, tuple[str, Sent]], seconds: float) -> list[str]:
    """The repairs that did not come."""
    deadline = time.monotonic() + seconds
    while True:
        left = [f"{key} in {store}" for key, (store, sent) in broken.items() if not is_whole(found, sent, store)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


@dataclass(frozen=True)
class _Copy:
    generation: int
    stays: bool
    """It is not one for faster reading, which goes when others need its room."""


def _is_kept_beside(where: dict[str, _Copy], store: str) -> bool:
    return any(copy.stays for name, copy in where.items() if name != store)


def _replicas(found: Installation, sha256: str) -> dict[str, _Copy]:
    """What each store has; nothing while anything goes on with the blob."""
    rows = found.stack.sql(
        "SELECT store, generation, promoted_at IS NULL, state = 'healthy' AND gc_after IS NULL"
        " FROM replica JOIN blob ON sha256 = blob WHERE encode(blob, 'hex') = %s",
        sha256,
    )
    quiet = all(row[3] for row in rows)
    return {store: _Copy(generation, stays) for store, generation, stays, _ in rows} if quiet else {}


def _break(path: Path, scratch: Path, chance: random.Random) -> None:
    """As a disk does it: the name stays. Not in place, since a reader may have the file open."""
    if chance.random() < 0.3:
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    said = path.stat()
    scratch.write_bytes(content)
    os.utime(scratch, ns=(said.st_atime_ns, said.st_mtime_ns))
    scratch.rename(path)
