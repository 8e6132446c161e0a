"""PostgreSQL dies, hangs, loses its backends, or its answer to a COMMIT: uploads are accepted all the same, nothing is
recorded twice, and readers get an answer in time."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg2
import pytest

from tests.app.server import Web, running
from tests.faults.outage import SOON_SECONDS, Uploads, assert_workers_consume, readiness, recorded, upload_at_once
from tests.faults.processes import is_gone
from tests.faults.stack import SETTINGS, Stack
from tests.metadata.cut import CuttingProxy

CROWD = 40


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("database")) as made:
        yield made


def backends(stack: Stack) -> list[int]:
    """Return the pids of the backends that serve Millrace; none while the server is away or recovers. The oldest come
    first: some are there for a moment only."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'millrace' AND pid <> pg_backend_pid()"
        " ORDER BY backend_start"
    )
    try:
        return [row[0] for row in stack.sql(query)]
    except psycopg2.Error:
        return []


def answers(stack: Stack) -> bool:
    try:
        return bool(stack.sql("SELECT 1"))
    except psycopg2.Error:
        return False


def test_stopped_hard(stack: Stack) -> None:
    with Uploads(stack, "/postgres/stopped-hard") as uploads:
        uploads.until(10)
        [before] = stack.pids("bin/postgres", "-D")
        os.kill(before, signal.SIGQUIT)
        stack.until(lambda: not answers(stack), 10, "the server is gone")
        uploads.until(5)
        stack.until(lambda: answers(stack), 20, "the server is back")
        assert stack.pids("bin/postgres", "-D") != [before]
        uploads.until(10)
    stack.check()


def test_backends_killed(stack: Stack) -> None:
    """By the server's own hand, which ends a connection, and by the kernel's, after which the server starts anew."""
    with Uploads(stack, "/postgres/backends") as uploads:
        for _ in range(5):
            uploads.until(5)
            stack.until(lambda: end_backends(stack), 20, "backends are ended")
        for _ in range(2):
            uploads.until(5)
            kill_a_backend(stack)
            stack.until(lambda: answers(stack), 20, "the server has recovered")
        uploads.until(5)
    stack.check()


def end_backends(stack: Stack) -> int:
    query = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM unnest(%s::int[]) AS pid"
    return int(stack.sql(query, backends(stack))[0][0])


def kill_a_backend(stack: Stack) -> None:
    found: list[int] = []

    def there_is_one() -> bool:
        found.extend(backends(stack))
        return bool(found)

    stack.until(there_is_one, 20, "there is a backend")
    os.kill(found[0], signal.SIGKILL)
    stack.until(lambda: is_gone(found[0]), 10, "the backend is gone")


def test_hanging(stack: Stack) -> None:
    """Uploads wait for nothing while a crowd reads what only PostgreSQL knows."""
    [told] = upload_at_once(stack, "/postgres/known", 1)
    stack.check()
    hanging = True

    def read(address: str) -> tuple[set[int], float]:
        statuses: set[int] = set()
        slowest = 0.0
        # From another address than those who upload: each has its own threads.
        others = httpx.HTTPTransport(verify=False, local_address="127.0.0.2")
        with httpx.Client(base_url=stack.url, timeout=20, transport=others) as client:
            while hanging or not statuses:
                began = time.monotonic()
                statuses.add(client.get(address).status_code)
                slowest = max(slowest, time.monotonic() - began)
        return statuses, slowest

    addresses = [
        f"/ingests/{told.upload_id}",
        "/ingests/00000000-0000-7000-8000-000000000000",
        "/assets/postgres/known",
    ]
    with stack.stopped("postgres"):
        alone = upload_at_once(stack, "/postgres/hanging", 5)
        alone += upload_at_once(stack, "/postgres/hanging", 3, keyed=True)
        with ThreadPoolExecutor(CROWD) as pool:
            crowd = [pool.submit(read, addresses[number % len(addresses)]) for number in range(CROWD)]
            try:
                time.sleep(0.5)
                beside = upload_at_once(stack, "/postgres/hanging", 10)
            finally:
                hanging = False
            for reader in crowd:
                statuses, slowest = reader.result()
                assert statuses <= {200, 503}
                assert slowest < SOON_SECONDS
        status, well = readiness(stack)
        assert (status, well["postgres"], well["redis"]) == (503, False, True)
    stack.until(lambda: recorded(stack, [*alone, *beside]), 30, "what was accepted meanwhile is stored")
    assert_workers_consume(stack)
    stack.check()


def test_answers_to_commits_are_lost(tmp_path: Path, database_url: str, services_directory: Path) -> None:
    """Before it, the web server starts while PostgreSQL and Redis take connections and never say a word."""
    with CuttingProxy(database_url, services_directory) as proxy:
        stack = Stack(tmp_path, settings=f'database_url = "{proxy.url}"\n{SETTINGS}')
        accept_beside_silence(stack)
        with stack:
            stack.check()
            with Uploads(stack, "/postgres/cut") as uploads:
                for committed in (b"INSERT INTO asset ", b"UPDATE variant ") * 3:
                    proxy.cut_after(b"COMMIT", following=committed)
                    stack.until(lambda: proxy.has_cut, 30, f"the answer to the COMMIT after {committed!r} is lost")
                    uploads.until(3)
                    proxy.cut_after(b"INSERT INTO replica ")  # which is a transaction for itself
                    stack.until(lambda: proxy.has_cut, 30, "the answer to a reservation is lost")
                    uploads.until(3)
            stack.check()
            [[count, entries]] = stack.sql(
                "SELECT count(*), max(entry) + 1 FROM asset WHERE path_text = '/postgres/cut'"
            )
            assert count == entries == len(uploads.told)


def accept_beside_silence(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        port = silent.getsockname()[1]
        options = {
            **{name: stack.environment[name] for name in ("MILLRACE_CONFIG", "MILLRACE_FAILPOINTS")},
            "MILLRACE_DATABASE_URL": f"postgresql://nobody@127.0.0.1:{port}/none",
            "MILLRACE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        }
        with running(Web(stack.home, options, port=stack.port)):
            upload_at_once(stack, "/postgres/silent", 10)
            upload_at_once(stack, "/postgres/silent", 3, keyed=True)
            status, well = readiness(stack)
            assert (status, well["postgres"], well["redis"], well["staging"]) == (503, False, False, True)
