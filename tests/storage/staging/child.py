"""A process that tests of staging start, race and kill: `python -m tests.storage.staging.child PARENT HOME DEED [ID…]`.
It dies with its parent."""

from __future__ import annotations

import signal
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from core.model import FailureReason
from core.parent_death import die_with_parent
from storage.staging.staging import Staging
from tests.storage.staging.uploads import settings, stage


def accept(staging: Staging, upload_id: UUID) -> None:
    stage(staging, upload_id=upload_id)


def work(staging: Staging, upload_id: UUID) -> None:
    claim = staging.claim(upload_id)
    assert claim is not None
    with claim:
        claim.start()
        claim.drop()


def give_up(staging: Staging, upload_id: UUID) -> None:
    claim = staging.claim(upload_id)
    assert claim is not None
    with claim:
        claim.start()
        claim.refund(delay=timedelta(0), reason=None)
        claim.quarantine(FailureReason("bad-image", "it is not one"))


def hold(staging: Staging, upload_id: UUID) -> None:
    claim = staging.claim(upload_id)
    assert claim is not None
    with claim:
        claim.start()
        print("held", flush=True)
        signal.pause()


def race(staging: Staging, *upload_ids: UUID) -> None:
    """Take what can be had, keep it, and say what it was."""
    sys.stdin.readline()
    claims = [claim for claim in map(staging.claim, upload_ids) if claim is not None]
    print(*(claim.manifest.id for claim in claims), flush=True)
    sys.stdin.readline()


def tell(staging: Staging) -> None:
    print(staging.host_id, flush=True)


DEEDS = {deed.__name__: deed for deed in (accept, work, give_up, hold, race, tell)}


def main(parent: str, home: str, deed: str, *upload_ids: str) -> None:
    die_with_parent(int(parent))
    DEEDS[deed](Staging.open(settings(Path(home))), *map(UUID, upload_ids))


if __name__ == "__main__":
    main(*sys.argv[1:])
