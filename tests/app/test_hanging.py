"""PostgreSQL and Redis stopped by SIGSTOP: connections are accepted and nothing ever answers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from metadata import migrate
from supervise.embedded_postgres import Postgres
from supervise.embedded_valkey import Valkey
from supervise.processes import Identity, start, stop
from tests.app.server import Web
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in tree(int(child)))]


class Hanging:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.postgres = Postgres(directory / "postgres", directory / "run", durable=False)
        self.valkey = Valkey(directory / "valkey", directory / "run")
        self._children = [start(one, directory / f"{one.name}.log") for one in (self.postgres, self.valkey)]
        self._stopped: list[Identity] = []

    def hang(self) -> None:
        found = [Identity.of(pid) for child in self._children for pid in tree(child.pid)]
        self._stopped = [identity for identity in found if identity is not None]
        for identity in self._stopped:
            identity.signal(signal.SIGSTOP)

    def end(self) -> None:
        for identity in self._stopped:
            identity.signal(signal.SIGCONT)
        stop(self._children)


@pytest.fixture
def hanging(services_directory: Path) -> Iterator[Hanging]:
    directory = services_directory / f"hanging-{os.getpid()}"
    directory.mkdir()
    with ExitStack() as stack:
        made = Hanging(directory)
        stack.callback(made.end)
        yield made


def accept_within_a_second(web: Web, **headers: str) -> None:
    began = time.monotonic()
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG, headers=headers)
    assert answer.status_code == 202
    assert time.monotonic() - began < 1


def test_uploads_are_accepted_within_a_second(hanging: Hanging, start_web: Callable[..., Web]) -> None:
    url = hanging.postgres.url_of("postgres")
    migrate.upgrade(url)
    web = start_web(DATABASE_URL=url, REDIS_URL=hanging.valkey.url, WEB__THREADS=32)
    answer = httpx.post(f"{web.url}/assets/a", content=JPEG)
    assert httpx.get(web.url + answer.headers["Location"]).json()["state"] == "staged"
    assert httpx.get(f"{web.url}/readyz").json()["dependencies"]["redis"]["ok"]
    hanging.hang()
    for number in range(5):
        accept_within_a_second(web)
        accept_within_a_second(web, **{"Idempotency-Key": f"key-{number}"})
    began = time.monotonic()
    assert httpx.get(web.url + answer.headers["Location"]).json()["state"] == "staged"
    assert time.monotonic() - began < 1
    _accept_beside_a_crowd(web)
    began = time.monotonic()
    ready = httpx.get(f"{web.url}/readyz")
    assert (ready.status_code, ready.json()["capabilities"]) == (503, {"accept": True, "read": False})
    assert time.monotonic() - began < 2
    web.stop()
    web.start()  # at start-up too
    accept_within_a_second(web, **{"Idempotency-Key": "after"})


def _accept_beside_a_crowd(web: Web) -> None:
    unknown = f"{web.url}/ingests/00000000-0000-7000-8000-000000000000"
    ends = time.monotonic() + 3

    def read() -> set[int]:
        statuses = set()
        # From another address than the one who uploads: each has its own threads.
        others = httpx.HTTPTransport(verify=False, local_address="127.0.0.2")
        with httpx.Client(transport=others, timeout=10) as client:
            while not statuses or time.monotonic() < ends:
                statuses.add(client.get(unknown).status_code)
        return statuses

    with ThreadPoolExecutor(40) as crowd:
        readers = [crowd.submit(read) for _ in range(40)]
        time.sleep(0.5)
        slowest = 0.0
        while time.monotonic() < ends:
            began = time.monotonic()
            assert httpx.post(f"{web.url}/assets/a", content=JPEG, timeout=10).status_code == 202
            slowest = max(slowest, time.monotonic() - began)
        assert set().union(*(reader.result() for reader in readers)) == {503}
    assert slowest < 2  # the crowd itself takes the test's own processor
