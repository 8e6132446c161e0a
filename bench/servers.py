"""The two sides: a whole Millrace in a home of its own, and the same gunicorn with a bare application."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from bench.load import Connection
from bench.measure import descendants

ROOT = Path(__file__).parents[1]
START_SECONDS = 90
STOP_SECONDS = 30
WEB_WORKERS = 2
WEB_THREADS = 64


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """Without the settings of whoever runs the bench."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}


class Server:
    """A process that answers on a port of its own, and ends with the `with`."""

    def __init__(self, home: Path, command: list[str], environment: Mapping[str, str], port: int) -> None:
        self.home = home
        self.port = port
        self._command = command
        self._environment = {**clean_environment(), **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        self._log = (self.home / "output.log").open("ab")
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=self._log, stderr=self._log
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._log is not None
        below = descendants(self._process.pid)
        self._process.terminate()
        time.sleep(0.3)
        for pid in below:  # those that were paused hear it only now
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def ready_path(self) -> str:
        return "/"

    def is_complete(self) -> bool:
        """What else must be there before anybody measures."""
        return True

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends and self._process.poll() is None:
            with suppress(OSError, ValueError), Connection(self.port) as connection:
                if connection.get(self.ready_path()) == 200 and self.is_complete():
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{self._command} does not answer:\n{(self.home / 'output.log').read_text()[-2000:]}")

    def pids(self, *words: str) -> list[int]:
        """Processes below it whose command line has all the words."""
        assert self._process is not None
        below = descendants(self._process.pid)
        return sorted(pid for pid, command in below.items() if all(word in command for word in words))


class Millrace(Server):
    def __init__(self, home: Path, config: str) -> None:
        home.mkdir(parents=True)
        (home / "examples-sent").touch()  # nothing is sent but what is measured
        (home / "bench.toml").write_text(config, encoding="utf-8")
        port = free_port()
        environment = {
            "MILLRACE_HOME": str(home),
            "MILLRACE_CONFIG": str(home / "bench.toml"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
        }
        super().__init__(home, [sys.executable, "-m", "cli", "up"], environment, port)

    def ready_path(self) -> str:
        return "/readyz"

    def is_complete(self) -> bool:
        """Its web server answers a little before `millrace up` says where everything is."""
        return (self.home / "run" / "services.json").exists()

    @property
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "run" / "services.json").read_text())
        return found

    @property
    def web_workers(self) -> list[int]:
        """gunicorn's children, which serve; not their parent, which only watches them."""
        web = self.pids("gunicorn")
        return [pid for pid in web if any(pid in descendants(parent) for parent in web)]

    def pause_background(self) -> None:
        """Accepting alone is measured: what was accepted stays staged."""
        for pid in [*self.pids("celery"), *self.pids("millrace", "sweep")]:
            os.kill(pid, signal.SIGSTOP)


class Bare(Server):
    """gunicorn with as many workers and threads, and `bench/bare_app.py`."""

    def __init__(self, home: Path, worker_class: str) -> None:
        port = free_port()
        self.worker_class = worker_class
        self._received = home / "received"
        self._received.mkdir(parents=True)
        command = [
            str(Path(sys.executable).parent / "gunicorn"),
            *("--worker-class", worker_class, "--workers", str(WEB_WORKERS), "--threads", str(WEB_THREADS)),
            *("--worker-connections", "1024", "--keep-alive", "15", "--no-control-socket"),
            *("--bind", f"127.0.0.1:{port}", "bench.bare_app:application"),
        ]
        environment = {"BENCH_DIRECTORY": str(self._received), "MILLRACE_HOME": str(home)}
        super().__init__(home, command, environment, port)

    def forget(self, *, larger_than: int) -> None:
        """Give the disk back between rounds."""
        for file in self._received.iterdir():
            if file.stat().st_size > larger_than:
                file.unlink()
