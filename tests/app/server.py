"""A real gunicorn with the real application, on disk alone unless a test gives it more."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from core.settings import Settings
from storage.staging.staging import Staging

ROOT = Path(__file__).parents[2]
NOWHERE = {
    "MILLRACE_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none",
    "MILLRACE_REDIS_URL": "redis://127.0.0.1:1/0",
}
"""A port that nobody listens on: PostgreSQL and Redis are away."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Web:
    home: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
        environment |= NOWHERE | {"MILLRACE_HOME": str(self.home), "MILLRACE_WEB__WORKERS": "1"}
        environment |= {"MILLRACE_WEB__STOP_DELAY_SECONDS": "0"} | self.options
        command = [str(Path(sys.executable).parent / "gunicorn"), "--config", "python:app.gunicorn_conf"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{self.port}", "app.wsgi:application"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 120  # a busy machine takes its time for it
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/livez", timeout=2).status_code == 200:
                    return
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(90)
        except subprocess.TimeoutExpired:
            for pid in [*self.workers(), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)
            raise
        finally:
            self.process = None

    @property
    def log(self) -> Path:
        self.home.mkdir(parents=True, exist_ok=True)
        return self.home / "web.log"

    def lines(self) -> list[dict[str, Any]]:
        """The log, which is JSON and nothing else."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def workers(self) -> list[int]:
        assert self.process is not None
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    # -- its staging, seen from outside

    @property
    def staging(self) -> Staging:
        return Staging.open(Settings(home=self.home))

    def leftovers(self) -> list[str]:
        """What lies in any folder of staging."""
        folders = ("incoming", "accepted", "quarantine", "trash")
        return [f"{folder}/{name}" for folder in folders for name in os.listdir(self.home / "staging" / folder)]

    def assert_nothing_staged(self, seconds: float = 5) -> None:
        deadline = time.monotonic() + seconds
        while self.leftovers() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.leftovers() == []

    # -- talking to it byte by byte

    def connect(self, client: str = "127.0.0.1") -> socket.socket:
        """`client`: the address of this machine's own network that the connection comes from."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(client, 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def exchange(self, request: bytes, *, end: bool = False) -> Answer:
        """Send these bytes, half-close if `end`, and read one answer."""
        with self.connect() as connection:
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer, and nothing of the next, which may lie there already."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        received = connection.recv(1)
        assert received, f"the connection ended after {data!r}"
        data += received
    first, *rest = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    body = b""
    while left := int(headers.get("content-length", 0)) - len(body):
        received = connection.recv(min(left, 65536))
        assert received, "the answer was cut"
        body += received
    return Answer(int(first.split()[1]), headers, body)


def head(method: str, target: str, **fields: object) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@contextlib.contextmanager
def running(web: Web) -> Iterator[Web]:
    try:
        web.start()
        yield web
    finally:
        web.stop()
