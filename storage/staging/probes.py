"""Whether a directory is a good place to stage uploads: what syncing costs, how much room there is, what kind of disk.

Makes nothing where there is no staging yet: then the nearest directory above is looked at.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from core.errors import Misconfigured, Unavailable
from core.findings import Check, Finding, note, ok, problem
from core.sections import GIB, KIB
from core.settings import Settings
from core.timings import measure
from storage.staging.folders import sync_directory
from storage.staging.staging import Staging

PROBE = ".doctor-"
SMALL = 20 * KIB
SLOW_SYNC_MS = 30
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
OF_THE_CONTAINER = frozenset({"overlay", "aufs"})
OVER_THE_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs"})
_FOLDERS = ("incoming", "accepted", "quarantine", "trash")


class StagingProbe:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.staging_path
        self._at = next(path for path in (self._root, *self._root.absolute().parents) if path.is_dir())

    def checks(self) -> Sequence[Check]:
        return (
            Check("directory", self._directory, needed=True),
            Check("disk", self._disk),
            Check("room", self._room),
            Check("sync", self._sync, seconds=20),
        )

    def _directory(self) -> Finding:
        if not os.access(self._at, os.W_OK | os.X_OK):
            return problem("directory", f"{self._at} cannot be written to by this user", "change its owner")
        if not (self._root / "accepted").is_dir():
            return note("directory", f"{self._root} is not there yet; the first start makes it")
        try:
            staging = Staging.open(self._settings)
        except Misconfigured as error:
            return problem("directory", error.detail)
        waiting, size = staging.depth()
        aside, held = staging.quarantine_depth()
        return ok(
            "directory",
            f"{self._root}: {waiting} uploads wait ({size:,} bytes), {aside} in quarantine ({held:,} bytes);"
            f" a 202 stands for {staging.durability.value}",
            waiting=waiting,
            quarantined=aside,
            quarantined_bytes=held,
        )

    def _disk(self) -> Finding:
        kind = file_system_of(self._at)
        devices = {path.stat().st_dev for name in _FOLDERS if (path := self._root / name).is_dir()}
        if len(devices) > 1:
            return problem("disk", "its folders are on more than one file system", "mount one file system at its root")
        chosen = self._settings.staging
        if kind in IN_MEMORY and not chosen.ephemeral:
            return problem(
                "disk",
                f"{kind}: in memory, and gone with the machine's power",
                "put staging.path on a disk, or say so to clients: staging.ephemeral = true",
            )
        if kind in OF_THE_CONTAINER:
            return problem(
                "disk", f"{kind}: a container's own layer, gone with the container", "mount a volume at staging.path"
            )
        if kind in OVER_THE_NETWORK:
            return note(
                "disk",
                f"{kind}: every upload waits for the network, and flock must work across hosts",
                "a local disk is what staging is made for",
            )
        if chosen.sync != "full" and not chosen.ephemeral:
            return note(
                "disk",
                f"{kind}, staging.sync = {chosen.sync}: a loss of power may take accepted uploads",
                "staging.sync = full keeps them",
            )
        return ok("disk", f"{kind}, one file system")

    def _room(self) -> Finding:
        figures = os.statvfs(self._at)
        free = figures.f_bavail * figures.f_frsize
        said = f"{free / GIB:.1f} GiB free" + (f", {figures.f_favail:,} inodes free" if figures.f_files else "")
        try:
            self._usable()
        except Unavailable as error:
            return problem(
                "room",
                f"{said}; uploads are refused: {error.detail}",
                "make room, or change staging.min_free_bytes, min_free_inodes, high_water_percent",
                free_bytes=free,
            )
        return ok("room", said, free_bytes=free)

    def _usable(self) -> None:
        """As admission asks it, where there is a staging directory already."""
        if (self._root / "accepted").is_dir():
            Staging.open(self._settings).check_usable()

    def _sync(self) -> Finding:
        """What committing a small upload costs: one file written and synced, then its directory."""
        data = random.randbytes(SMALL)
        file = self._at / f"{PROBE}{uuid4()}"

        def commit(_: int) -> None:
            with open(file, "xb") as body:
                body.write(data)
                body.flush()
                os.fsync(body.fileno())
            sync_directory(self._at)
            file.unlink()

        try:
            timings = measure(commit, rounds=30, seconds=5)
        except OSError as error:
            return problem("sync", f"writing to {self._at} failed: {error.strerror}")
        finally:
            file.unlink(missing_ok=True)
        said = f"p50 {timings.p50_ms:.1f} ms, p99 {timings.p99_ms:.1f} ms for one upload of {SMALL // KIB} KiB"
        figures = {"p50_ms": timings.p50_ms, "p99_ms": timings.p99_ms}
        if timings.p50_ms > SLOW_SYNC_MS and self._settings.staging.sync != "none":
            return note(
                "sync", f"slow: {said}", "a disk with a protected write cache syncs in under a millisecond", **figures
            )
        return ok("sync", said, **figures)


def file_system_of(path: Path) -> str:
    """Its type as the kernel names it: `ext4`, `tmpfs`, `overlay`, `fuse.sshfs`, …; `unknown` where that cannot be
    told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "unknown"
    real, deepest, kind = path.resolve(), 0, "unknown"
    for line in lines:
        mount, _, kinds = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), mount.split()[4]))
        if real.is_relative_to(point) and len(point.parts) >= deepest:  # of two mounts on one point the later is seen
            deepest, kind = len(point.parts), kinds.split()[0]
    return kind
