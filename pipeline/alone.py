"""Work that killed its process several times gets one run in a child of its own, with limits on time, memory and CPU.

The parent keeps the claim or the lease; the child inherits no descriptor and dies with the parent (`PR_SET_PDEATHSIG`),
so a kill from outside looks like any other crash of the parent and counts for nothing. Only the child's own death,
time-out or error is a verdict on the work. What the child logs goes where the parent's lines go.
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
from io import RawIOBase
from uuid import UUID

from core import logs, settings
from core.errors import Misconfigured, StoreUnavailable, Unavailable
from core.failpoints import failpoint
from core.model import FailureReason, LeasedVariant
from core.parent_death import die_with_parent
from core.settings import Settings
from storage.staging import host

log = logging.getLogger(__name__)

LAST_WORDS = 100
"""Bytes of the name of the error that ended the child. Less than a pipe holds, so neither waits for the other."""

MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h: the child could not begin, which says nothing of the work."""

TOLD_TO_GO = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def limit(configured: Settings, size: int) -> timedelta:
    """The time an attempt on `size` bytes may take."""
    work = configured.work
    return timedelta(seconds=work.solo_seconds + size / work.solo_bytes_per_second)


def run(configured: Settings, arguments: Sequence[str], *, size: int, text: str = "") -> FailureReason | None:
    """Run `python -m pipeline.alone ARGUMENTS` with `text` as its input. None: it ended in an orderly way and
    has settled the work itself, or it was told to go.

    Raises:
        StoreUnavailable: the disk under the picture could not be read.
        Unavailable: this host has no process left for it, or its settings cannot be used any more.
    """
    seconds = limit(configured, size).total_seconds()
    try:
        child, reading = _begin(arguments)
    except OSError as error:
        raise Unavailable(f"no process can be started for a run alone: {error.strerror}") from error
    with open(reading, "rb", buffering=0) as words:
        try:
            child.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return FailureReason("timed-out", f"it did not end within {seconds:.0f} s, alone and for the last time")
        except BaseException:
            child.kill()
            child.communicate()
            raise
        return _verdict(child.returncode, words)


def _begin(arguments: Sequence[str]) -> tuple[subprocess.Popen[str], int]:
    """The child, and where its last words come from."""
    reading, writing = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell, ids only
            [sys.executable, "-m", "pipeline.alone", str(os.getpid()), str(writing), *arguments],
            stdin=subprocess.PIPE,
            pass_fds=[writing],
            text=True,
            start_new_session=True,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return child, reading


def _verdict(code: int, words: RawIOBase) -> FailureReason | None:
    if code == 0 or -code in TOLD_TO_GO:
        return None
    if code == MISCONFIGURED:
        raise Unavailable("the settings of this host changed and cannot be used: `millrace config` says why")
    if -code == signal.SIGBUS:  # the file is mapped: its disk failed in the middle of the work
        raise StoreUnavailable("the disk under the picture could not be read while it was decoded")
    if code < 0:
        name = signal.Signals(-code).name
        return FailureReason("crashed", f"it ended its process by {name}, alone and for the last time")
    last = (words.read(LAST_WORDS) or b"").decode("ascii", "replace") or "its log says why"
    return FailureReason("crashed", f"it ended its process with code {code}: {last}")


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
    from pipeline import derive, ingest
    from pipeline.services import build

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
