"""A HAProxy in front of servers that a test starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervise.processes import POLITE, start, stop
from supervise.python_process import Process
from tests.app.server import free_port
from tests.system.haproxy import configuration
from tests.system.programs import program


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], int]]:
    """Start one before servers, given as name and address:port; returns the port that it listens on."""
    with ExitStack() as ended:

        def begin(servers: Mapping[str, str]) -> int:
            port = free_port()
            file = tmp_path / f"haproxy-{port}.cfg"
            file.write_text(configuration(f"127.0.0.1:{port}", servers))
            argv = [program("haproxy"), "-db", "-f", str(file)]
            child = start(
                Process("haproxy", argv, dict(os.environ), POLITE, lambda: _listens(port)), file.with_suffix(".log")
            )
            ended.callback(stop, [child])
            return port

        yield begin


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
