"""`MILLRACE_HOME/run`: who runs here, and where its services are.

up.lock          locked by the supervisor as long as it lives
NAME.pid         one for each child: pid, start time and boot, so that a pid that was given away is never signalled
services.json    the URLs of a ready stack, readable by its user only; gone when it stops
ephemeral        the temporary directory of a stack that keeps nothing
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from core.errors import Misconfigured
from supervise import subreaper
from supervise.processes import Identity

_LEFT_OVER_LADDER = ((signal.SIGTERM, 3.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0))

_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private directory in it
_ROOM_BYTES = 1 << 30


class RunDirectory:
    def __init__(self, home: Path) -> None:
        self.path = home / "run"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only supervisor of this home.

        Raises:
            Misconfigured: another one is running.
        """
        _make(self.path.parent)
        _make(self.path)
        with (self.path / "up.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise Misconfigured(
                    f"`millrace up` is already running on {self.path.parent} (pid {lock.read().strip() or 'unknown'}):"
                    " stop it, or set another MILLRACE_HOME"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def clear(self) -> list[str]:
        """Stop what an earlier supervisor left running and forget what it wrote; returns the names it stopped."""
        (self.path / "services.json").unlink(missing_ok=True)
        marker = self.path / "ephemeral"
        temporary = marker.read_text(encoding="utf-8") if marker.exists() else ""
        stopped = []
        for file in sorted(self.path.glob("*.pid")):
            if _stop_left_over(file, {str(self.path.parent), temporary}):
                stopped.append(file.stem)
            file.unlink(missing_ok=True)
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        marker.unlink(missing_ok=True)
        return stopped

    def record(self, name: str, pid: int) -> None:
        identity = Identity.of(pid)
        if identity is not None:
            _write(self.path / f"{name}.pid", {"pid": pid, "started": identity.started, "boot": _boot()})

    def forget(self, name: str) -> None:
        (self.path / f"{name}.pid").unlink(missing_ok=True)

    def publish(self, urls: Mapping[str, str]) -> None:
        _write(self.path / "services.json", dict(urls))

    def unpublish(self) -> None:
        (self.path / "services.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def temporary_home(self) -> Iterator[Path]:
        """A directory in memory, or where memory has no room on disk; gone afterwards; after a crash, at the next
        start."""
        made = tempfile.mkdtemp(prefix="millrace-", dir=_MEMORY if _has_room(_MEMORY) else None)
        try:
            (self.path / "ephemeral").write_text(made, encoding="utf-8")
            yield Path(made)
        finally:
            shutil.rmtree(made, ignore_errors=True)
            (self.path / "ephemeral").unlink(missing_ok=True)


def in_memory(directory: Path) -> bool:
    return _MEMORY in directory.parents


def _has_room(directory: Path) -> bool:
    """Containers often have 64 MiB there: staging would be over its high-water mark from the start."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return os.access(directory, os.W_OK) and found.f_bavail * found.f_frsize >= _ROOM_BYTES


def _stop_left_over(file: Path, homes: Collection[str]) -> bool:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        main, boot = Identity(int(found["pid"]), int(found["started"])), found["boot"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if boot != _boot():
        return False
    members = [Identity.of(pid) for pid in subreaper.session_members(main.pid) if _belongs_to(pid, homes)]
    alive = [process for process in {main, *members} if process is not None and process.is_alive()]
    for number, seconds in _LEFT_OVER_LADDER:
        for process in alive:
            process.signal(number)
            process.signal(signal.SIGCONT)
        alive_still = [process for process in alive if not process.ends_within(seconds)]
        if not alive_still:
            break
    return bool(alive)


def _belongs_to(pid: int, homes: Collection[str]) -> bool:
    """Its environment names one of our homes: a session number alone could have been given to somebody else."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(b"MILLRACE_HOME=" + os.fsencode(home) in environment for home in homes)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _make(directory: Path) -> None:
    """For our user only, if it is new."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{directory}: {error.strerror}") from None


def _write(path: Path, value: Mapping[str, object]) -> None:
    """All of it or nothing, and for our user only."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    os.rename(temporary, path)
