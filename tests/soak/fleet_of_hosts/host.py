"""One host of the fleet: a network, a process tree, a name and a disk of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import core.parent_death
from tests.faults.processes import is_gone
from tests.faults.stack import ROOT
from tests.soak.fleet_of_hosts import keeper
from tests.soak.fleet_of_hosts.network import inside
from tests.system.programs import program

PORT = 8080
STOP_SECONDS = 120


class Host:
    def __init__(self, name: str, address: str, home: Path, variables: Mapping[str, str], roles: list[str]) -> None:
        self.name = name
        self.address = address
        self.home = home
        self.url = f"http://{address}:{PORT}"
        own = {"MILLRACE_HOME": str(home / "millrace"), "HOST": address, "PORT": str(PORT)}
        self.variables = {**variables, **own}
        self._roles = roles
        self._process: subprocess.Popen[bytes] | None = None
        for directory in (home / "millrace", home / "log"):
            directory.mkdir(parents=True)

    def start(self) -> None:
        guard = [sys.executable, "-I", "-S", core.parent_death.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
        apart = [program("unshare"), "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        kept = [sys.executable, "-I", "-S", keeper.__file__, self.name, str(ROOT / "Procfile"), str(self.home / "log")]
        with (self.home / "keeper.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*guard, *inside(self.name), *apart, *kept, *self._roles],
                cwd=ROOT,
                env=dict(self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill all of the host at once, as a power cut does."""
        self._signal(signal.SIGKILL)
        self.wait(30)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def wait(self, seconds: float = STOP_SECONDS) -> None:
        if self._process is not None:
            self._process.wait(seconds)
            self._process = None

    def run(self, *words: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run one of the product's commands on this host."""
        return subprocess.run(
            [*inside(self.name), str(Path(sys.executable).with_name(words[0])), *words[1:]],
            cwd=ROOT,
            env=dict(self.variables),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @property
    def staging(self) -> Path:
        return self.home / "millrace" / "staging"

    @property
    def id(self) -> UUID:
        return UUID(json.loads((self.staging / ".host.json").read_text())["host_id"])

    def staged(self, *folders: str) -> list[str]:
        """Names in `incoming`, `accepted` and `quarantine`, or in those that are named."""
        found: list[str] = []
        for folder in folders or ("incoming", "accepted", "quarantine"):
            with suppress(FileNotFoundError):
                found += [path.name for path in (self.staging / folder).iterdir()]
        return found

    def lose_disk(self) -> None:
        (self.home / "millrace").rename(self.home / "lost")

    def find_disk(self) -> None:
        (self.home / "lost").rename(self.home / "millrace")

    def _signal(self, number: int) -> None:
        """Send a signal to the first process of the host, which `unshare` waits for."""
        if self._process is None:
            return
        ends = time.monotonic() + 10
        while not (found := self._first()) and time.monotonic() < ends and self.is_running:
            time.sleep(0.05)
        if found and not is_gone(found):
            os.kill(found, number)

    def _first(self) -> int | None:
        assert self._process is not None
        pid = self._process.pid
        with suppress(OSError):
            words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return int(words[0]) if words else None
        return None
