"""The database itself: opened by its one owner, or beside it by processes that read.

RocksDB lets one process write. A reader is a "secondary instance": it follows the owner's files when it is told to
catch up, writes nothing, and keeps open what the owner deletes. Secondaries were seen to lose track of a busy owner
(https://github.com/facebook/rocksdb/issues/12190, /14429), so a reader that still misses something after it has caught
up opens the database anew before it says that there is nothing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from core.errors import MillraceError, Misconfigured, NoStore, StoreUnavailable
from storage.os_errors import translated as os_translated
from storage.rocksdb.errors import held_by_another, translated
from storage.rocksdb.options import MISSING, RocksdbOptions
from storage.rocksdb.tuning import read_write, secondary

if TYPE_CHECKING:
    from rocksdict import Rdict

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
"""A reader that finds what it looks for still catches up this often, so that it lets go of files that are deleted."""

REOPEN_SECONDS = 0.1
"""A reader opens anew at most this often, however many names are asked for that never were; those who ask wait."""


class Database(Protocol):
    def views(self) -> Iterator[Rdict]:
        """What is there now, then, for those who did not find what they look for, ever fresher views."""

    def to_write(self) -> Rdict:
        """
        Raises:
            StoreUnavailable: this process does not own the database.
        """

    def establish(self) -> None:
        """Make it, if there is none.

        Raises:
            StoreUnavailable: this process does not own it.
        """

    def close(self) -> None: ...


class Owner:
    """Opens at first use; holds RocksDB's own lock until it is closed or the process ends."""

    def __init__(self, name: str, path: Path, options: RocksdbOptions) -> None:
        self._name = name
        self._path = path
        self._options = options
        self._opened: Rdict | None = None
        self._opening = Lock()

    def views(self) -> Iterator[Rdict]:
        yield self.to_write()

    def to_write(self) -> Rdict:
        opened = self._opened
        if opened is None:
            with self._opening:
                opened = self._opened = self._opened or self._open()
        return opened

    def establish(self) -> None:
        with os_translated(f"{self._name}: establish"):
            self._path.mkdir(parents=True, exist_ok=True)
        with self._opening:
            self._opened = self._opened or self._open(create=True)

    def close(self) -> None:
        with self._opening:
            if self._opened is not None:
                with translated(f"{self._name}: close"):
                    self._opened.close()
            self._opened = None

    def _open(self, *, create: bool = False) -> Rdict:
        if not create:
            require_made(self._name, self._path)
        try:
            with translated(f"{self._name}: open"):
                return read_write(self._path, self._options, create=create)
        except StoreUnavailable as error:
            if held_by_another(error):
                reason = (
                    f"{self._name}: another process owns the RocksDB in {self._path}, and only one can write:"
                    " run one worker for this store, `millrace worker all --pool threads`"
                )
                log.warning(reason)
                raise StoreUnavailable(reason) from error
            raise


class Reader:
    def __init__(self, name: str, path: Path, options: RocksdbOptions) -> None:
        self._name = name
        self._path = path
        self._options = options
        self._opened: Rdict | None = None
        self._lock = Lock()
        self._followed_at = -math.inf
        self._opened_at = -math.inf

    def views(self) -> Iterator[Rdict]:
        asked = time.monotonic()
        yield self._current()
        yield self._caught_up()
        yield self._opened_since(asked)

    def to_write(self) -> Rdict:
        raise StoreUnavailable(
            f"{self._name} is a RocksDB, which one process owns, and this one only reads it: what writes to it runs in"
            " `millrace worker all --pool threads`"
        )

    def establish(self) -> None:
        self.to_write()

    def close(self) -> None:
        with self._lock:
            self._opened = None  # bodies that are being read still hold it

    def _current(self) -> Rdict:
        with self._lock:
            if self._opened is None:
                return self._open()
            if time.monotonic() - self._followed_at > FOLLOW_SECONDS:
                return self._follow(self._opened)
            return self._opened

    def _caught_up(self) -> Rdict:
        with self._lock:
            return self._open() if self._opened is None else self._follow(self._opened)

    def _opened_since(self, asked: float) -> Rdict:
        with self._lock:
            if self._opened is not None and self._opened_at > asked:
                return self._opened
            time.sleep(max(0.0, self._opened_at + REOPEN_SECONDS - time.monotonic()))
            return self._open()

    def _follow(self, opened: Rdict) -> Rdict:
        try:
            with translated(f"{self._name}: catch up"):
                opened.try_catch_up_with_primary()
        except MillraceError:
            return self._open()  # the owner was faster than we can follow
        self._followed_at = time.monotonic()
        return opened

    def _open(self) -> Rdict:
        require_made(self._name, self._path)
        # Only RocksDB's log of messages goes there. It stays open without a name, and nothing is left by a kill.
        with TemporaryDirectory(prefix="millrace-rocksdb-") as messages, translated(f"{self._name}: open"):
            self._opened = secondary(self._path, Path(messages), self._options)
        self._opened_at = self._followed_at = time.monotonic()
        return self._opened


def require_made(name: str, path: Path) -> None:
    """
    Raises:
        NoStore: there is no database.
    """
    if not (path / "CURRENT").exists():
        raise NoStore(
            f"{name}: there is no RocksDB in {path}. In a new store its owner makes it; else: is its disk mounted?"
        )


def require_library(name: str) -> None:
    """
    Raises:
        Misconfigured: with the command that installs it.
    """
    try:
        import rocksdict  # noqa: F401 - whether it is there
    except ImportError:
        raise Misconfigured(f"stores.{name}.kind: {MISSING}") from None
