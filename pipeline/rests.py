"""Work that ends its process, or fails in a way that no code foresaw, again and again: it rests, longer each time.

Counted on this host, in small files, because a process that is killed cannot say anything any more: while work runs it
holds a lock on a file, and a file without a lock was left by one that died. Its own end counts for nothing when it
was told to go. Where nothing can be written the work is done uncounted.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from uuid_utils.compat import uuid4

from core import clock, troubles
from core.errors import MillraceError
from core.loops import rest
from pipeline.leaving import given_back

log = logging.getLogger(__name__)

FAILURES = 3
"""In a row that cost nothing but themselves."""
LONGEST = 64
"""Times the first rest."""


@dataclass
class _Record:
    failures: int = 0
    since: float = 0.0
    """By the wall clock, as what follows: it must hold for the next process."""
    rests_until: float = 0.0


class Rests:
    """Safe for threads and processes."""

    def __init__(self, directory: Path, first_seconds: float) -> None:
        self._directory = directory
        self._first_seconds = first_seconds

    @contextmanager
    def start(self, name: str) -> Iterator[float]:
        """Yields the seconds that this work still rests: with more than 0 it must not be done now."""
        left, running = self._begin(name)
        if left > 0:
            yield left
            return
        failed: Exception | None = None
        well = False
        try:
            with nullcontext() if running is None else given_back(running.unlink):
                yield 0.0
            well = True
        except MillraceError:
            raise
        except Exception as error:
            failed = error
            raise
        finally:
            with suppress(OSError), self._locked():
                if running is not None:
                    running.unlink()
                if well:
                    self._forget(name)
                elif failed is not None:
                    self._count(name, 1, type(failed).__name__)

    def reset(self, name: str) -> None:
        """Forget what it did to earlier processes: it has come further."""
        with suppress(OSError), self._locked():
            self._forget(name)

    def _begin(self, name: str) -> tuple[float, _Running | None]:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                dead = sum(map(_is_left_over, list(self._directory.glob(f"{name}@*"))))
                if dead:
                    self._count(name, dead, "process-died")
                left = self._read(name).rests_until - clock.now().timestamp()
                # A clock that was wrong once puts nothing off for longer than it would have rested.
                if 0 < left <= self._first_seconds * LONGEST:
                    return left, None
                return 0.0, _Running(self._directory / f"{name}@{uuid4()}")
        except OSError:
            log.debug("work is not counted", exc_info=True)
            return 0.0, None

    def _count(self, name: str, failures: int, kind: str) -> None:
        record = self._read(name)
        record.since = record.since or clock.now().timestamp()
        record.failures += failures
        pause = rest(record.failures - FAILURES + 1, self._first_seconds, self._first_seconds * LONGEST)
        record.rests_until = clock.now().timestamp() + pause
        log.error("work failed before its end", extra={"work": name, "in_a_row": record.failures, "rests": pause})
        self._path(name).write_text(json.dumps(asdict(record)), encoding="utf-8")
        if record.failures >= FAILURES:
            said = f"it rests for {pause:.0f} s"
            troubles.note(name, record.failures, clock.now().timestamp() - record.since, kind, said, of_host=True)

    def _forget(self, name: str) -> None:
        if self._path(name).exists():
            self._path(name).unlink()
            troubles.forget(name, of_host=True)

    def _read(self, name: str) -> _Record:
        with suppress(OSError, ValueError, TypeError):
            return _Record(**json.loads(self._path(name).read_text(encoding="utf-8")))
        return _Record()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class _Running:
    """Work that is under way, for as long as its process lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlink(self) -> None:
        """Let it count for nothing, even if this process dies. Another thread may say so, too."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def _is_left_over(path: Path) -> bool:
    """Return whether the process that made it died; it is removed then."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    return True
