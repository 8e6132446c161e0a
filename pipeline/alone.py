"""Work that killed its process several times gets one run in a child of its own, with limits on time, memory and CPU.

The parent keeps the claim or the lease; the child inherits no descriptor and dies with the parent (`PR_SET_PDEATHSIG`),
so a kill from outside looks like any other crash of the parent and counts for nothing. Only the child's own death,
time-out or error is a verdict on the work.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from core import logs, settings
from core.failpoints import failpoint
from core.model import FailureReason, LeasedVariant
from core.parent_death import die_with_parent
from core.settings import Settings

log = logging.getLogger(__name__)

TOLD_TO_GO = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def limit(configured: Settings, size: int) -> timedelta:
    """The time an attempt on `size` bytes may take."""
    work = configured.work
    return timedelta(seconds=work.solo_seconds + size / work.solo_bytes_per_second)


def run(configured: Settings, arguments: Sequence[str], *, size: int, text: str = "") -> FailureReason | None:
    """Run `python -m pipeline.alone ARGUMENTS` with `text` as its input. None: it ended in an orderly way and
    has settled the work itself, or it was told to go."""
    seconds = limit(configured, size).total_seconds()
    child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell, ids only
        [sys.executable, "-m", "pipeline.alone", str(os.getpid()), *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = child.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return FailureReason("timed-out", f"it did not end within {seconds:.0f} s, alone and for the last time")
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.returncode == 0 or -child.returncode in TOLD_TO_GO:
        return None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return FailureReason("crashed", f"it ended its process by {name}, alone and for the last time")
    last = errors.strip().splitlines()[-1:] or ["no message"]
    return FailureReason("crashed", f"it ended its process with code {child.returncode}: {last[0][:300]}")


def _restrict(parent: int, configured: Settings) -> None:
    die_with_parent(parent)
    memory = int(configured.work.solo_memory)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(parent: str, kind: str, *arguments: str) -> None:
    from pipeline import derive, ingest
    from pipeline.services import build

    configured = settings.load()
    logs.configure(configured)
    _restrict(int(parent), configured)
    failpoint("alone.start", arguments[0])
    services = build(configured)
    try:
        if kind == "ingest":
            claim = services.staging.claim(UUID(arguments[0]), held_by_parent=True)
            if claim is not None:
                with claim:
                    ingest.run(services, claim, last=True)
        else:
            derive.work_leased(services, leased_from_json(sys.stdin.read()))
    finally:
        services.close()


def leased_to_json(leased: LeasedVariant) -> str:
    return json.dumps(
        {
            "id": str(leased.id),
            "source": leased.source.hex(),
            "recipe": dict(leased.recipe),
            "fence": leased.fence,
            "attempts": leased.attempts,
            "unfinished": leased.unfinished,
        }
    )


def leased_from_json(text: str) -> LeasedVariant:
    found = json.loads(text)
    return LeasedVariant(
        UUID(found["id"]),
        bytes.fromhex(found["source"]),
        found["recipe"],
        found["fence"],
        found["attempts"],
        found["unfinished"],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
