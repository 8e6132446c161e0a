"""A whole Millrace of the test's own: `millrace up` in a temporary home, with short intervals and armed failpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg2

from tests.faults.checker import World, violations
from tests.faults.history import History, Told
from tests.faults.processes import parent_of

ROOT = Path(__file__).parents[2]

SETTINGS = """
[web]
workers = 1
threads = 32
[work]
sweep_seconds = 1
maintenance_seconds = 1
backoff_seconds = 0.2
backoff_cap_seconds = 2
broker_patience_seconds = 2
lease_seconds = 4
lease_renewal_seconds = 1
gc_grace_seconds = 1
pending_grace_seconds = 3
incoming_grace_seconds = 1
host_lost_seconds = 5
solo_seconds = 8
[profiles.thumb]
w = 64
[profiles.square]
w = 48
h = 48
fit = "crop"
format = "webp"
[[paths]]
match = "/bare/**"
eager = []
[[paths]]
match = "/**"
eager = ["thumb", "square"]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Start with `with Stack(tmp_path) as stack:`; everything it started has ended when it is left.

    The variable `STACK_SETTINGS` holds tables of TOML to add to the settings of every stack: so a soak runs all of
    these tests under other ones. `STACK_CLOCK_AHEAD` is seconds that its hosts are ahead of PostgreSQL."""

    def __init__(self, home: Path, *, settings: str = SETTINGS) -> None:
        self.home = home / "home"
        self.home.mkdir(parents=True)
        self.failpoints = home / "failpoints"
        self.failpoints.mkdir()
        config = home / "millrace.toml"
        config.write_text(settings + os.environ.get("STACK_SETTINGS", ""))
        if ahead := os.environ.get("STACK_CLOCK_AHEAD"):
            self.set_clock(float(ahead))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.history = History()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")},
            "MILLRACE_HOME": str(self.home),
            "MILLRACE_CONFIG": str(config),
            "MILLRACE_FAILPOINTS": str(self.failpoints),
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        log = (self.home.parent / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--no-examples"], cwd=ROOT, env=self.environment, stdout=log, stderr=log
        )
        log.close()
        self.until(self.is_ready, 60, "the stack is ready")

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home.parent / "up.log").read_text()[-3000:]
        if not (self.home / "run" / "services.json").exists():  # comes a moment after the web server
            return False
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False

    def stop(self) -> None:
        if self.process is None:
            return
        for pid in self.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in [*self.descendants(), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(10)
            raise
        finally:
            self.process = None

    # -- processes

    def descendants(self) -> list[int]:
        assert self.process is not None
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(path.parent.name))
        found, frontier = [], [self.process.pid]
        while frontier:
            frontier = [child for pid in frontier for child in children.get(pid, [])]
            found += frontier
        return found

    def pids(self, *words: str) -> list[int]:
        """Descendants whose command line holds all the words, the oldest first."""
        found = []
        for pid in self.descendants():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if all(word in command for word in words):
                    found.append(pid)
        return sorted(found)

    def heads(self, *words: str) -> list[int]:
        """Those whose parent does not show the words: a server's master, a worker's main process."""
        found = self.pids(*words)
        return [pid for pid in found if parent_of(pid) not in found]

    def children(self, *words: str) -> list[int]:
        """Those whose parent shows the words, too: what a master forked."""
        found = self.pids(*words)
        return [pid for pid in found if parent_of(pid) in found]

    def kill(self, *words: str, number: int = signal.SIGKILL) -> list[int]:
        pids = self.pids(*words)
        assert pids, f"no process shows {words}"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    @contextlib.contextmanager
    def stopped(self, *words: str) -> Iterator[None]:
        pids = self.kill(*words, number=signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # -- failpoints

    def arm(self, name: str, action: str, *, subject: object = "", always: bool = False) -> Path:
        path = self.failpoints / (f"{name}@{subject}" if subject else name)
        scratch = self.failpoints.parent / "arming"
        scratch.write_text(action + ("\nalways" if always else ""))
        scratch.rename(path)
        return path

    def set_clock(self, ahead: float) -> None:
        """Set the wall clock of this host this many seconds ahead, from now on."""
        (self.failpoints / "clock-ahead").write_text(str(ahead))

    def disarm(self, armed: Path) -> None:
        armed.unlink(missing_ok=True)

    def until_fired(self, armed: Path, seconds: float = 30) -> None:
        fired = armed.with_name(armed.name + ".fired")
        self.until(fired.exists, seconds, f"the failpoint {armed.name} fires")
        fired.unlink()

    # -- requests

    def upload(
        self, path: str, body: bytes, *, key: str | None = None, timeout: float = 20, wait: int | None = None
    ) -> Told:
        headers = {"Idempotency-Key": key} if key else {}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        told = Told(path, hashlib.sha256(body).hexdigest(), key, None)
        began = time.monotonic()
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{self.url}/assets{path}", content=body, headers=headers, timeout=timeout)
            told.status, told.seconds = answer.status_code, time.monotonic() - began
            if answer.status_code in (201, 202):
                said = answer.json()
                told.upload_id, told.asset_id = UUID(said["id"]), UUID(said["assetId"])
                told.location = answer.headers["Location"]
        return self.history.add(told)

    def upload_until_accepted(self, path: str, body: bytes, *, key: str, seconds: float = 60) -> Told:
        """As a careful client does it: with a key, again and again until an answer says that it was accepted."""
        deadline = time.monotonic() + seconds
        while (told := self.upload(path, body, key=key)).status not in (201, 202):
            assert told.status in (None, 503), f"{path}: refused with {told.status}"
            assert time.monotonic() < deadline, f"{path}: not accepted within {seconds} s"
            time.sleep(0.1)
        return told

    def delete(self, told: Told, *, purge: bool = False, seconds: float = 60) -> None:
        """Delete what was uploaded, again and again until an answer says that it is gone."""
        links: list[str | None] = []

        def stored() -> bool:
            links.append(self.ingest(told.upload_id).get("links", {}).get("asset"))
            return links[-1] is not None

        self.until(stored, seconds, f"{told.path} is stored")
        entry = f"{links[-1]}?purge=true" if purge else links[-1]
        self.until(lambda: self.request("DELETE", entry) in (200, 204), seconds, f"{entry} is deleted")
        for same in self.history.uploads:
            if same.asset_id == told.asset_id or (same.key is not None and same.key == told.key):
                same.deleted = True

    def request(self, method: str, address: str, timeout: float = 20) -> int | None:
        """The status; None: no answer came."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.request(method, f"{self.url}{address}", timeout=timeout).status_code
        return None

    def ingest(self, upload_id: UUID | None) -> dict[str, Any]:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{self.url}/ingests/{upload_id}", timeout=5)
            return {"status": answer.status_code, **(answer.json() if answer.status_code == 200 else {})}
        return {"status": None}

    # -- looking

    @property
    def services(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.home / "run" / "services.json").read_text())
        return found

    def sql(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.services["database_url"])
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, arguments or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def world(self) -> World:
        return World.look(self.services["database_url"], self.home / "store", self.home / "staging")

    def until(self, condition: Any, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s still not: {what}")
            time.sleep(0.05)

    def check(self, *, expect_failed: Collection[UUID] = (), seconds: float = 60) -> None:
        """Once the faults are over, every invariant holds within a bound."""
        deadline = time.monotonic() + seconds
        found = ["the database was not there"]
        while found and time.monotonic() < deadline:
            time.sleep(0.3)
            with contextlib.suppress(psycopg2.OperationalError, FileNotFoundError):
                found = violations(self.world(), self.history, expect_failed=expect_failed)
        assert not found, "\n".join(found[:30])
