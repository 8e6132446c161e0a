"""The program of a process that works on one thing, alone (`pipeline/isolation/parent.py` starts it).

python -Pm pipeline.isolated PARENT WORDS KIND ID
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from collections.abc import Sequence
from uuid import UUID

from core import logs, settings
from core.errors import Misconfigured
from core.failpoints import failpoint
from core.model import LeasedVariant
from core.parent_death import die_with_parent
from core.settings import Settings
from pipeline.isolation.parent import LAST_WORDS, MISCONFIGURED
from pipeline.services import build
from pipeline.uploads import ingest
from pipeline.variants import derive
from storage.staging import host

log = logging.getLogger(__name__)


def _restrict(parent: int, configured: Settings) -> None:
    die_with_parent(parent)
    memory = int(configured.work.solo_memory)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(parent: str, words: str, kind: str, *arguments: str) -> None:
    try:
        configured = settings.load()
        logs.configure(configured, host.known(configured))
        _work(parent, configured, kind, arguments)
    except Misconfigured as error:
        log.critical("a run alone cannot begin", extra={"detail": error.detail})
        sys.exit(MISCONFIGURED)
    except Exception as error:
        log.exception("a run alone failed", extra={"kind": kind, "id": arguments[0]})
        name = type(error).__name__  # clients see it, and not what else it says
        os.write(int(words), name[:LAST_WORDS].encode("ascii", "replace"))
        sys.exit(1)


def _work(parent: str, configured: Settings, kind: str, arguments: Sequence[str]) -> None:
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
