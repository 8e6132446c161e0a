"""Local staging: where an accepted upload lives until it is stored and recorded.

What `Incoming.commit` returned for survives any crash of a process, and with `staging.sync = "full"` of the host. An
entry is in exactly one of the folders of `storage/staging/folders.py` and is worked on by one claim at a time; looking
at it never locks. Nothing here talks to anything but the local disk.

A file in accepted/ that is not a whole entry (a broken disk, a foreign hand) never stops the others: it is put into
quarantine, where it shows with the reason `corrupt` and a manifest made of what the file's name and length say. Files
whose names are no upload's are left alone.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from core import clock, logs
from core.errors import Corrupt, StagingFull, Unavailable
from core.failpoints import failpoint
from core.loops import each
from core.model import Attempts, Durability, Manifest, StagedEntry
from core.settings import Settings
from storage.staging import host
from storage.staging.claim import Claim, claim, lock, release
from storage.staging.entry import read_manifest, read_trailer, write_attempts
from storage.staging.folders import DISCARDED, Directory, Folders, accepted_at, depth, entry_names, move, upload_ids
from storage.staging.incoming import Incoming
from storage.staging.look import FOREIGN, is_due, look_at
from storage.staging.space import Space, refusal, translated

log = logging.getLogger(__name__)

__all__ = ["Incoming", "Staging"]


class Staging:
    """Safe to use from many threads and many processes at once."""

    host_id: UUID
    durability: Durability

    def __init__(self, folders: Folders, host_id: UUID, settings: Settings) -> None:
        self.host_id = host_id
        self.durability = _durability(settings)
        self._folders = folders
        self._sync = settings.staging.sync
        self._settings = settings
        self._space = Space(folders.root, settings)
        with translated("opening staging"):
            self._accepted = Directory(folders.accepted)
        self._sound: set[str] = set()

    @classmethod
    def open(cls, settings: Settings) -> Staging:
        """Make the folders and the host id where they are missing.

        Raises:
            Misconfigured: when the directory cannot be used, or is a copy of another host's.
        """
        folders = Folders.make(settings.staging_path)
        host_id = host.read_or_make(folders)
        logs.of_host(host_id)
        return cls(folders, host_id, settings)

    # ── accepting

    def begin(self, upload_id: UUID, *, expected: int | None) -> Incoming:
        """Start an upload, its space reserved: all of it, or a piece at a time when `expected` is None. `upload_id` is
        what it is called until it is an entry, with the id of its manifest.

        Raises:
            StagingFull: over the high-water mark, or the space or an inode cannot be had.
        """
        self.check_room(expected)
        return Incoming(self._folders, self._accepted, upload_id, expected=expected, sync=self._sync)

    def check_room(self, expected: int | None) -> None:
        """
        Raises:
            StagingFull: when `begin` would refuse such an upload. Cheap: figures up to a second old.
        """
        self._space.check(expected)

    def check_usable(self) -> None:
        """
        Raises:
            StagingFull, Unavailable: when an upload would be refused now.
        """
        try:
            self.check_room(None)
        except StagingFull as error:
            count, size = self.quarantine_depth()
            if not count:
                raise
            said = f"{size:,} bytes are {count} failed uploads: retry or discard them (`millrace failures`,"
            detail = f"{error.detail}; {said} `millrace staging empty-quarantine`)"
            raise StagingFull(detail, retry_after=error.retry_after) from None
        for folder in (self._folders.incoming, self._folders.accepted):
            if not os.access(folder, os.W_OK | os.X_OK):  # a read-only disk says so too
                raise Unavailable(f"staging's folder {folder.name} cannot be written to")

    def has_room(self, expected: int | None) -> bool:
        try:
            self.check_room(expected)
        except StagingFull:
            return False
        return True

    # ── looking

    def look(self, upload_id: UUID) -> StagedEntry | None:
        """An entry as it stands. None: it is not here, or not any more. A broken one shows as quarantined."""
        accepted, quarantine = self._folders.accepted, self._folders.quarantine
        # It may move while we look, either way; the last look catches one that was requeued in between.
        for folder in (accepted, quarantine, accepted):
            entry = self._look_in(folder, upload_id)
            if entry is not None:
                return entry
        return None

    def recently_done(self, upload_id: UUID) -> Manifest | None:
        """The manifest of an entry that was dropped a little while ago."""
        entry = self._look_in(self._folders.trash, upload_id)
        return entry.manifest if entry is not None and not entry.quarantined else None

    def entries(self) -> Iterator[UUID]:
        """What waits in accepted/, in no order."""
        return upload_ids(self._folders.accepted)

    def quarantined(self) -> Iterator[StagedEntry]:
        """Oldest first, broken ones included."""
        for upload_id in sorted(upload_ids(self._folders.quarantine)):
            entry = self._look_in(self._folders.quarantine, upload_id)
            if entry is not None:
                yield entry

    def depth(self) -> tuple[int, int]:
        """Entries that wait, and their bytes. Reads every name."""
        return depth(self._folders.accepted)

    def quarantine_depth(self) -> tuple[int, int]:
        """Entries that failed, and their bytes. They lie on staging's disk, so they count against its mark."""
        return depth(self._folders.quarantine)

    def due(self, limit: int, now: datetime, *, after: UUID | None = None) -> list[UUID]:
        """The oldest entries that may be worked on now, younger than `after`. Those that somebody claimed may be among
        them: only a claim can tell. So may broken ones: a claim puts them aside."""
        start = str(after) if after else ""
        names = [name for name in entry_names(self._folders.accepted) if name > start]
        heapq.heapify(names)
        latest = now + timedelta(seconds=self._settings.work.backoff_cap_seconds)
        found: list[UUID] = []
        while names and len(found) < limit:
            name = heapq.heappop(names)
            if is_due(self._folders.accepted / name, now, latest):
                found.append(UUID(name))
        return found

    # ── working

    def claim(self, upload_id: UUID, *, held_by_parent: bool = False) -> Claim | None:
        """Take the entry for this process. None: gone, claimed by another, or broken and now put aside."""
        path = self._folders.accepted / str(upload_id)
        try:
            return claim(self._folders, path, synced=self._sync != "none", held_by_parent=held_by_parent)
        except Corrupt as error:
            self._put_aside(upload_id, error.detail)
        except OSError as error:
            if error.errno == errno.EIO:
                self._put_aside(upload_id, "its disk cannot read it")
            elif error.errno not in FOREIGN:
                raise refusal("claiming an entry", error) from error
        return None

    def requeue(self, upload_id: UUID) -> bool:
        """From quarantine back to accepted, with a fresh count. The last reason stays in the record. False: it is not
        in quarantine, or it is broken and cannot be worked on."""
        path = self._folders.quarantine / str(upload_id)
        with translated("taking an entry out of quarantine"):
            file = lock(path)
            if file is None:
                return False
            try:
                before = read_trailer(file.fileno())
                read_manifest(file.fileno(), before)
                write_attempts(file.fileno(), Attempts(failure=before.attempts.failure))
                return move(upload_id, self._folders.quarantine, self._folders.accepted)
            except Corrupt:
                return False
            finally:
                release(file)

    def discard(self, upload_id: UUID) -> bool:
        """From quarantine to the trash, for good. False: it is not there."""
        with translated("discarding an entry"):
            return move(upload_id, self._folders.quarantine, self._folders.trash, suffix=DISCARDED)

    def empty_quarantine(self, older_than: timedelta) -> tuple[int, int]:
        """Discard what was accepted that long ago and failed; returns how many entries, and their bytes."""
        limit = clock.now().timestamp() - older_than.total_seconds()
        sizes: list[int] = []

        def empty(upload_id: UUID) -> None:
            path = self._folders.quarantine / str(upload_id)
            with translated("emptying quarantine"), suppress(FileNotFoundError):
                size = path.stat(follow_symlinks=False).st_size
                if accepted_at(upload_id) <= limit and self.discard(upload_id):
                    sizes.append(size)

        each(list(upload_ids(self._folders.quarantine)), empty)
        return len(sizes), sum(sizes)

    # ── sweeping: what the disk refuses for one file is said at the end, and keeps no other

    def set_broken_aside(self) -> int:
        """Put files in accepted/ that are no entries into quarantine. Reads each entry once in a process's life: one
        that breaks later is seen when it is claimed."""
        present = set(entry_names(self._folders.accepted))
        self._sound &= present

        def set_aside(name: str) -> bool:
            entry = self._look_in(self._folders.accepted, UUID(name))
            if entry is not None and not entry.quarantined:
                self._sound.add(name)
            return entry is not None and entry.quarantined and self._put_aside(UUID(name), "found by the sweep")

        return each(sorted(present - self._sound), set_aside)

    def sweep_incoming(self, older_than: timedelta) -> int:
        """Remove uploads that nobody holds any more and that nobody wrote to for so long."""

        def remove(upload_id: UUID) -> bool:
            path = self._folders.incoming / str(upload_id)
            failpoint("staging.sweep-incoming", str(upload_id))
            try:
                file = None if clock.age(path.stat().st_mtime) < older_than.total_seconds() else lock(path)
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno in FOREIGN:
                    return False
                raise
            if file is None:
                return False
            try:
                path.unlink(missing_ok=True)
            finally:
                release(file)
            return True

        return each(upload_ids(self._folders.incoming), remove)

    def empty_trash(self, older_than: timedelta) -> int:
        """Remove what came into the trash that long ago; all of it when staging is over its high-water mark."""
        age = 0.0 if self._space.is_short() else older_than.total_seconds()

        def remove(item: os.DirEntry[str]) -> bool:
            failpoint("staging.empty-trash", item.name)
            with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                # A rename sets the change time, and nothing but the kernel sets it otherwise.
                if clock.age(item.stat(follow_symlinks=False).st_ctime) >= age:
                    os.unlink(item.path)
                    return True
            return False

        with os.scandir(self._folders.trash) as found:
            return each(found, remove)

    def _look_in(self, folder: Path, upload_id: UUID) -> StagedEntry | None:
        quarantined = folder == self._folders.quarantine
        return look_at(folder / str(upload_id), host_id=self.host_id, quarantined=quarantined)

    def _put_aside(self, upload_id: UUID, detail: str) -> bool:
        """False: it is gone, or somebody works on it."""
        log.error("a broken entry goes to quarantine", extra={"upload_id": str(upload_id), "detail": detail})
        with translated("putting a broken entry aside"):
            try:
                file = lock(self._folders.accepted / str(upload_id))
            except OSError:  # broken down to its inode; its name can be moved all the same
                return move(upload_id, self._folders.accepted, self._folders.quarantine)
            if file is None:
                return False
            try:
                return move(upload_id, self._folders.accepted, self._folders.quarantine)
            finally:
                release(file)


def _durability(settings: Settings) -> Durability:
    if settings.staging.ephemeral:
        return Durability.MEMORY
    return Durability.HOST_DISK if settings.staging.sync == "full" else Durability.HOST_CACHE
