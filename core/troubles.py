"""What fails again and again in the background of this host, where each of its processes can see it.

One small file for each loop that keeps failing, below the home. Its writer removes it when the loop turns again; one
whose writer is gone is shown until it is old. Nothing rests on these files: where they cannot be written, the log has
it all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from core import clock

OLD_SECONDS = 600
"""Since the last word of it. A loop that goes on failing speaks at every try, so every minute at least."""

DETAIL_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Trouble:
    what: str
    """The loop, step or process."""
    times: int
    """In a row."""
    since: str
    kind: str
    """The error's class: strangers may see it, unlike the detail."""
    detail: str

    @property
    def summary(self) -> str:
        return f"{self.what} fails since {self.since}, {self.times} times in a row ({self.kind})"


_directory: Path | None = None


def keep_in(directory: Path) -> None:
    global _directory
    _directory = directory


def note(what: str, times: int, failing_seconds: float, kind: str, detail: str, *, of_host: bool = False) -> None:
    """Note that it failed again, so many times in a row, for so long. `of_host`: another process here may end it."""
    if _directory is None:
        return
    since = (clock.now() - timedelta(seconds=failing_seconds)).isoformat(timespec="seconds")
    found = Trouble(what, times, since, kind, " ".join(detail.split())[:DETAIL_CHARACTERS])
    path = _path(_directory, what, of_host=of_host)
    scratch = path.with_name(f".{path.name}")
    with suppress(OSError):
        _directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch.write_text(json.dumps(asdict(found)), encoding="utf-8")
        scratch.rename(path)


def forget(what: str, *, of_host: bool = False) -> None:
    """Remove the note of what failed: it went well."""
    if _directory is not None:
        with suppress(OSError):
            _path(_directory, what, of_host=of_host).unlink(missing_ok=True)


def known(directory: Path) -> list[Trouble]:
    """Return what every process of this host says, the loops in the order of their names."""
    return sorted(_read(directory), key=lambda one: (one.what, one.since))


def _read(directory: Path) -> Iterator[Trouble]:
    with suppress(OSError):
        for item in list(directory.iterdir()):
            with suppress(OSError, ValueError, TypeError):
                if clock.age(item.stat().st_mtime) > OLD_SECONDS:
                    item.unlink(missing_ok=True)
                elif not item.name.startswith("."):
                    yield Trouble(**json.loads(item.read_text(encoding="utf-8")))


def _path(directory: Path, what: str, *, of_host: bool) -> Path:
    return directory / f"{what}.{'host' if of_host else os.getpid()}"
