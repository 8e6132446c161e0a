"""PostgreSQL as a child process: one cluster in a directory, reached over a unix socket in a 0700 directory only.

The cluster appears by one rename after it is complete, so a crash while it is made leaves nothing to mend. After a
crash of the server or of everything, the next start recovers from its own log.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from core.errors import Misconfigured
from supervise import postgres_binaries, subreaper, unprivileged
from supervise.processes import Child, Identity, StopLadder, capture, server_environment

USER = DATABASE = "millrace"
_SOCKET_PATH_LIMIT = 107
_SOCKET_NAME = ".s.PGSQL.5432"
CHILDREN_SECONDS = 10.0
_LIST_SYNTAX = frozenset('," \t\n')


class Postgres:
    """A `Service` (see supervise/processes.py)."""

    name = "postgres"
    stop_ladder: StopLadder = ((signal.SIGINT, 3.0), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 1.0))
    """Fast shutdown, then immediate (recovery at the next start)."""

    def __init__(
        self,
        cluster: Path,
        run: Path,
        *,
        durable: bool = True,
        options: Sequence[str] = (),
        way: unprivileged.Way | None = None,
        binaries: postgres_binaries.Binaries | None = None,
    ) -> None:
        """`durable=False` gives up every sync: for data that ends with the process."""
        self._cluster = cluster
        self._durable = durable
        self._options = options
        self._way = way or unprivileged.choose()
        self._binaries = binaries or postgres_binaries.choose(cluster)
        self.sockets = _socket_directory(run)

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self.sockets), safe='/')}"

    def prepare(self) -> None:
        _make_private(self.sockets)
        if not self._cluster.exists():
            self._initialise()
        self._way.own(self._cluster)
        self._forget_stale_lock()

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "300",
            "cluster_name": "millrace",
            "timezone": "UTC",
            "dynamic_shared_memory_type": "mmap",  # a container's /dev/shm may be tiny
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._way.prefix, self._binaries.path("postgres"), "-D", str(self._cluster), *words, *self._options]

    def environment(self) -> Mapping[str, str]:
        return server_environment()

    def is_ready(self, child: Child) -> bool:
        """As pg_ctl does it: the server writes its state into its lock file."""
        lines = self._lock_file()
        return len(lines) >= 8 and lines[0].strip() == str(child.pid) and lines[7].strip() == "ready"

    def mend(self) -> bool:
        return False

    def _initialise(self) -> None:
        self._cluster.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._cluster.with_name(self._cluster.name + ".new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        self._way.own(scratch)
        self._run(
            "initdb", "-D", str(scratch), f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C",
            *([] if self._durable else ["--no-sync"]),
        )  # fmt: skip
        self._run("postgres", "--single", "-D", str(scratch), "template1", say=f"CREATE DATABASE {DATABASE};\n")
        os.rename(scratch, self._cluster)

    def _run(self, program: str, *words: str, say: str = "") -> None:
        done = capture(
            [*self._way.prefix, self._binaries.path(program), *words],
            say=say,
            seconds=120,
            env=dict(self.environment()),
            cwd="/",
        )
        if done.code != 0:
            raise Misconfigured(f"{program} failed: {done.reason}")

    def _forget_stale_lock(self) -> None:
        """Stop a server that was left over on this cluster; drop a lock file whose pid is somebody else's by now."""
        lines = self._lock_file()
        if not lines:
            return
        left_over = Identity.of(int(lines[0]))
        if left_over is not None and self._is_server(left_over.pid):
            for number, seconds in self.stop_ladder:
                left_over.signal(number)
                if left_over.ends_within(seconds):
                    break
            if left_over.is_alive():
                return
        # To PostgreSQL a process that is dead and not reaped yet (a container may have nobody who reaps) still runs.
        for lock in (self._cluster / "postmaster.pid", self.sockets / f"{_SOCKET_NAME}.lock"):
            lock.unlink(missing_ok=True)
        self._await_children()

    def _await_children(self) -> None:
        """Wait for a killed server's children: they end by themselves; no other starts on its shared memory before."""
        deadline = time.monotonic() + CHILDREN_SECONDS
        while any(subreaper.working_in(self._cluster)) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _is_server(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return Path(os.fsdecode(words[0])).name == "postgres" and os.fsencode(self._cluster) in words

    def _lock_file(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []


def _socket_directory(run: Path) -> Path:
    """`run` itself, or, where its name is too long for a socket or means something in PostgreSQL's list of directories,
    a private directory under /tmp named after it."""
    run = run.absolute()
    if len(os.fsencode(run / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT and not _LIST_SYNTAX.intersection(str(run)):
        return run
    digest = hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    return Path(f"/tmp/millrace-{os.geteuid()}-{digest}")  # noqa: S108 - checked by _make_private


def _make_private(directory: Path) -> None:
    """Only our user may enter: whoever can open the socket is trusted."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or directory.is_symlink():
        raise Misconfigured(f"{directory} belongs to somebody else")
    directory.chmod(0o700)
