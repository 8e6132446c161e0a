"""Work that killed its process several times gets one run in a child of its own, with limits on time, memory and CPU.

The parent keeps the claim or the lease; the child inherits no descriptor and dies with the parent (`PR_SET_PDEATHSIG`),
so a kill from outside looks like any other crash of the parent and counts for nothing. Only the child's own death,
time-out or error is a verdict on the work. What the child logs goes where the parent's lines go.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from io import RawIOBase

from core.errors import StoreUnavailable, Unavailable
from core.model import FailureReason, LeasedVariant
from core.settings import Settings
from pipeline.isolation.limit import limit

LAST_WORDS = 100
"""Bytes of the name of the error that ended the child. Less than a pipe holds, so neither waits for the other."""

MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h: the child could not begin, which says nothing of the work."""

TOLD_TO_GO = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def run(configured: Settings, arguments: Sequence[str], *, size: int, text: str = "") -> FailureReason | None:
    """Run `python -Pm pipeline.isolated ARGUMENTS` with `text` as its input. None: it ended in an orderly way and
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
    """Start the child; return it, and the descriptor where its last words come from."""
    reading, writing = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell, ids only
            [sys.executable, "-Pm", "pipeline.isolated", str(os.getpid()), str(writing), *arguments],
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
