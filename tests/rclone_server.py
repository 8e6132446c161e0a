"""A second S3 server for tests: rclone's, over a directory. It is another implementation than moto's, and it checks
signatures. It dies with its test process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import core.parent_death

START_SECONDS = 60
ACCESS_KEY_ID = "rclone-test-key"
SECRET_ACCESS_KEY = "rclone-test-secret"
STARTED = re.compile(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]")


@dataclass(frozen=True)
class RcloneServer:
    endpoint: str
    root: Path
    """Each folder in it is a bucket, each file below one an object."""


@contextmanager
def rclone_server(directory: Path) -> Iterator[RcloneServer]:
    root = directory / "buckets"
    root.mkdir(parents=True)
    log = directory / "log"
    server = _start(root, log)
    try:
        yield RcloneServer(_endpoint(server, log), root)
    finally:
        server.kill()
        server.wait()


def _start(root: Path, log: Path) -> subprocess.Popen[bytes]:
    guard = [sys.executable, "-I", "-S", core.parent_death.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
    # The kernel gives the port: a free one that is looked for could be taken before it is used.
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", str(root), "--addr", "127.0.0.1:0"]
    options = ["--config", "", "--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}", "--verbose"]
    with log.open("wb") as output:
        return subprocess.Popen(
            guard + command + options, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=root
        )


def _endpoint(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if found := STARTED.search(log.read_text()):
            return found.group(1)
        time.sleep(0.05)
    raise AssertionError(f"rclone's server does not start:\n{log.read_text()}")
