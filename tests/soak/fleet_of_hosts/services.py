"""What the hosts share, each on a machine of its own: PostgreSQL, Valkey, an S3 server and HAProxy."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from supervise.embedded_postgres import DATABASE, USER, Postgres
from supervise.embedded_valkey import find_binary
from supervise.processes import POLITE, Child, Service, start, stop
from supervise.python_process import Process
from tests.soak.fleet_of_hosts.network import inside
from tests.system.haproxy import configuration
from tests.system.programs import program

NARROW, WIDE = 60, 120
"""Connections to PostgreSQL: fewer than the fleet may open, and enough."""


class Machine:
    """One service that can be ended, killed and started on what it has."""

    def __init__(self, service: Service, log: Path) -> None:
        self._service = service
        self._log = log
        self._child: Child | None = None

    def start(self) -> None:
        self._child = start(self._service, self._log)

    def stop(self) -> None:
        if self._child is not None:
            stop([self._child])

    def kill(self) -> None:
        if self._child is not None:
            self._child.process.kill()
            self._child.process.wait()


class _Elsewhere(Postgres):
    """On another machine than the one that starts it."""

    machine = "postgres"

    def command(self) -> list[str]:
        return [*inside(self.machine), *super().command()]


def postgres(address: str, directory: Path, connections: int = NARROW) -> tuple[Machine, str]:
    """Return a PostgreSQL server, and its URL for the fleet."""
    rules = directory / "hba.conf"
    rules.write_text("local all all trust\nhost all all 10.77.0.0/16 trust\n")
    rules.chmod(0o644)
    options = {"listen_addresses": address, "max_connections": str(connections), "hba_file": str(rules)}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server = _Elsewhere(directory / "postgres", directory / "run", options=words)
    return Machine(server, directory / "postgres.log"), f"postgresql://{USER}@{address}:5432/{DATABASE}"


def valkey(address: str, directory: Path) -> tuple[Machine, str]:
    data = directory / "valkey"
    data.mkdir()
    options = {
        "bind": address,
        "port": "6379",
        "protected-mode": "no",
        "dir": str(data),
        "appendonly": "yes",
        "save": "",
    }
    options |= {"maxmemory": "256mb", "maxmemory-policy": "noeviction"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    service = _process("valkey", [find_binary(), *words], address, 6379)
    return Machine(service, directory / "valkey.log"), f"redis://{address}:6379/0"


def haproxy(address: str, directory: Path, servers: Mapping[str, str]) -> Machine:
    file = directory / "haproxy.cfg"
    file.write_text(configuration(f"{address}:80", servers))
    return Machine(
        _process("door", [program("haproxy"), "-db", "-f", str(file)], address, 80), directory / "haproxy.log"
    )


def _process(machine: str, argv: list[str], address: str, port: int) -> Process:
    return Process(machine, [*inside(machine), *argv], dict(os.environ), POLITE, lambda: _listens(address, port))


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
