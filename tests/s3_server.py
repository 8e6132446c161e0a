"""A real S3 server for tests: moto's, as a child that dies with its test process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx

import core.parent_death

START_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    pid: int
    log: Path
    """A line for each request."""

    def make_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name)

    def keys(self, bucket: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def requests(self, method: str, key: str) -> int:
        """How many of them there were for keys that begin so."""
        log = re.sub(r"\x1b\[\d+m", "", self.log.read_text())  # answers other than 200 are coloured
        return sum(f'"{method} /{key}' in line for line in log.splitlines())

    def client(self):  # type: ignore[no-untyped-def]  # its type is generated at run time
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    for _ in range(3):  # another process may take the free port first
        port = _free_port()
        server = _start(port, log)
        try:
            if _answers(server, port):
                yield S3Server(f"http://127.0.0.1:{port}", server.pid, log)
                return
        finally:
            server.kill()
            server.wait()
    raise AssertionError(f"moto's server does not start:\n{log.read_text()}")


@contextmanager
def slow_restorations(endpoint: str, seconds: float) -> Iterator[None]:
    """From the archive they take so many seconds; before, an object has to have been there as long."""
    manager, model = f"{endpoint}/moto-api/state-manager", "s3::keyrestore"
    transition = {"progression": "time", "seconds": seconds}
    httpx.post(f"{manager}/set-transition", json={"model_name": model, "transition": transition})
    yield
    httpx.post(f"{manager}/unset-transition", json={"model_name": model})


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
