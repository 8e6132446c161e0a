"""A real S3 server for the tests of one process: moto's, as a child that dies with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import core.parent_death

START_SECONDS = 60


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("moto") / "log"
    for _ in range(3):  # another process may take the free port first
        port = _free_port()
        server = _start(port, log)
        try:
            if _answers(server, port):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            server.kill()
            server.wait()
    pytest.fail(f"moto's server does not start:\n{log.read_text()}")


def _start(port: int, log: Path) -> subprocess.Popen[bytes]:
    guard = [
        sys.executable,
        "-I",
        "-S",
        str(Path(core.parent_death.__file__)),
        str(os.getpid()),
        str(int(signal.SIGKILL)),
    ]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        return subprocess.Popen(guard + command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
