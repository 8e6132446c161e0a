"""All machines of the fleet: a context manager that ends what it started."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg2
import redis

from tests.seaweedfs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedServer
from tests.soak.fleet_of_hosts import services
from tests.soak.fleet_of_hosts.host import PORT, Host
from tests.soak.fleet_of_hosts.network import Network, inside

BUCKET = "fleet"
INGEST = ["web", "ingest", "sweep"]
VARIANTS = ["interactive", "variants"]
ALSO_BACKGROUND = ["maintenance", "beat"]
"""On two of the variants hosts: one that dies does not take the only ones along."""

SETTINGS = """
default_store = "main"
[stores.main]
kind = "s3"
bucket = "{bucket}"
endpoint_url = "{endpoint}"
addressing_style = "path"
access_key_id = "{key}"
secret_access_key = "{secret}"
[web]
workers = 1
threads = 64
allow_anonymous = true
trusted_proxies = ["{door}"]
database_seconds = 3 # one machine does the work of eleven
[work]
ingest_concurrency = 1
interactive_concurrency = 1
variants_concurrency = 1
sweep_seconds = 3
maintenance_seconds = 5
backoff_cap_seconds = 5
broker_patience_seconds = 5
gc_grace_seconds = 10
pending_grace_seconds = 60
incoming_grace_seconds = 10
host_lost_seconds = 20
[variants]
eager = "fleet"
[profiles.thumb]
w = 64
"""


class Fleet:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = Network()
        address = {
            name: self.network.add(name, number)
            for name, number in (("postgres", 2), ("valkey", 3), ("s3", 4), ("door", 5))
        }
        self._postgres_at = address["postgres"]
        self.postgres, self._database_url = services.postgres(self._postgres_at, directory)
        self.valkey, self.redis_url = services.valkey(address["valkey"], directory)
        self.s3 = SeaweedServer(directory / "s3", address=address["s3"], inside=inside("s3"))
        self.url = f"http://{address['door']}"
        settings = directory / "millrace.toml"
        where = {"bucket": BUCKET, "endpoint": self.s3.endpoint, "door": address["door"]}
        settings.write_text(SETTINGS.format(**where, key=ACCESS_KEY_ID, secret=SECRET_ACCESS_KEY))
        variables = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "MILLRACE_CONFIG": str(settings),
            "MILLRACE_DATABASE_URL": self._database_url,
            "MILLRACE_REDIS_URL": self.redis_url,
        }

        def host(name: str, number: int, roles: list[str]) -> Host:
            return Host(name, self.network.add(name, number), directory / name, variables, roles)

        self.ingest = [host(f"ingest-{n}", 10 + n, INGEST) for n in (1, 2, 3)]
        self.variants = [host(f"variants-{n}", 20 + n, VARIANTS + ALSO_BACKGROUND * (n <= 2)) for n in (1, 2, 3, 4)]
        behind = {one.name: f"{one.address}:{PORT}" for one in self.ingest}
        self.door = services.haproxy(address["door"], directory, behind)

    @property
    def hosts(self) -> list[Host]:
        return [*self.ingest, *self.variants]

    def __enter__(self) -> Self:
        try:
            for service in (self.postgres, self.valkey, self.s3, self.door):
                service.start()
            self.s3.make_bucket(BUCKET)
            migrated = self.ingest[0].run("millrace", "migrate")
            assert migrated.returncode == 0, migrated.stderr
            for host in self.hosts:
                host.start()
            self.until(self.is_ready, 180, "every host is ready")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        for host in self.hosts:
            host.terminate()
        for host in self.hosts:
            with suppress(Exception):
                host.wait(90)
            host.kill()
        self.door.stop()
        self.s3.kill()
        self.valkey.stop()
        self.postgres.stop()

    def is_ready(self) -> bool:
        """Return whether every ingest host says that it is well: each queue is read, and so is every host's own."""
        with suppress(httpx.HTTPError):
            for host in self.ingest:
                answer = httpx.get(f"{host.url}/readyz", timeout=5, trust_env=False)
                if answer.status_code != 200 or not all(one["ok"] for one in answer.json()["dependencies"].values()):
                    return False
            return True
        return False

    def accepts(self, host: Host) -> bool:
        """Ask the host as HAProxy does, and return whether it accepts."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{host.url}/readyz?for=accept", timeout=2, trust_env=False).status_code == 200
        return False

    def give_connections(self, count: int) -> None:
        """Start PostgreSQL again with so many."""
        self.postgres.stop()
        self.postgres, _ = services.postgres(self._postgres_at, self.directory, count)
        self.postgres.start()
        self.until(self.is_ready, 60, "every host is ready again")

    def sql(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self._database_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, arguments or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def flush(self) -> None:
        def flushed() -> bool:
            with suppress(redis.RedisError), redis.Redis.from_url(self.redis_url) as client:
                return bool(client.flushall())
            return False

        self.until(flushed, 30, "Valkey is emptied")  # one that just started reads its file first

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
            time.sleep(0.2)
