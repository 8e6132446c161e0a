"""Redis dies, comes back empty, is flushed, hangs, is full, drops its connections: no upload is refused or lost, and
the workers consume again."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis

from tests.faults.outage import (
    Uploads,
    assert_workers_consume,
    died,
    ingest_key,
    ingested_by_worker,
    readiness,
    recorded,
    upload_at_once,
)
from tests.faults.stack import Stack

MARK = "a test was here"
WINDOW = 8
"""Messages that the sweep keeps in the queue of a host with two ingest processes."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("broker")) as made:
        yield made


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(stack.services["redis_url"], socket_timeout=5)
    yield client
    client.close()


@pytest.fixture
def words(stack: Stack) -> tuple[str, ...]:
    """What the server's command line shows, and no other's."""
    return ("-server", f"127.0.0.1:{urlsplit(stack.services['redis_url']).port}")


def answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.RedisError:
        return False


def test_killed_and_restarted_empty(stack: Stack, server: redis.Redis, words: tuple[str, ...]) -> None:
    server.set(MARK, 1)
    with Uploads(stack, "/redis/killed") as uploads:
        uploads.until(15)
        [before] = stack.kill(*words, number=signal.SIGSTOP)  # so that nothing starts while its file goes
        for data in (stack.home / "valkey").iterdir():
            shutil.rmtree(data)
        stack.kill(*words)
        stack.until(lambda: answers(server), 20, "the server is back")
        assert server.get(MARK) is None
        assert stack.pids(*words) != [before]
        uploads.until(15)
    assert_workers_consume(stack)
    stack.check()


def test_flushed_under_load(stack: Stack, server: redis.Redis) -> None:
    with Uploads(stack, "/redis/flushed") as uploads:
        for _ in range(5):
            server.set(MARK, 1)
            uploads.until(8)
            server.flushall()
            assert server.get(MARK) is None
    assert_workers_consume(stack)
    stack.check()


def test_stopped(stack: Stack, server: redis.Redis, words: tuple[str, ...]) -> None:
    with stack.stopped(*words):
        told = upload_at_once(stack, "/redis/stopped", 15)
        with pytest.raises(redis.TimeoutError):
            server.ping()
        status, well = readiness(stack)
        assert (status, well["redis"], well["postgres"]) == (200, False, True)
        stack.until(lambda: recorded(stack, told), 60, "the sweep ingests without Redis")
        assert not any(ingested_by_worker(stack, one) for one in told[-3:])
    stack.until(lambda: readiness(stack)[1]["redis"], 10, "Redis is seen again")
    assert_workers_consume(stack, 60)
    stack.check()


def test_full(stack: Stack, server: redis.Redis) -> None:
    """With as many messages in the queue as the sweep sends: nothing more is published, and taking one needs memory."""
    deaths = died(stack)
    with stack.stopped("worker", "ingest@"):
        told = upload_at_once(stack, "/redis/full", 12)
        stack.until(lambda: server.llen(ingest_key(stack)) >= WINDOW, 20, "the sweep has filled its window")
        server.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            server.set(MARK, 1)
        told += upload_at_once(stack, "/redis/full", 15)
        stack.until(lambda: recorded(stack, told), 60, "uploads are stored beside a full Redis")
        time.sleep(6)  # the workers look for abandoned messages every 5 s, which a full Redis refuses
        assert died(stack) == deaths
    finally:
        server.config_set("maxmemory", 0)
    assert_workers_consume(stack)
    stack.check()


def test_connections_reset(stack: Stack, server: redis.Redis) -> None:
    with Uploads(stack, "/redis/reset") as uploads:
        for _ in range(20):
            uploads.until(1)
            killed = server.client_kill_filter(_type="normal", skipme=True)
            assert killed
            time.sleep(0.1)
    assert_workers_consume(stack)
    stack.check()
