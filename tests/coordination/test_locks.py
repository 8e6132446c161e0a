"""Each kind of lock against the contract, and what only Redis can do: die, hang, forget its scripts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import fakeredis
import pytest
import redis
from pydantic import SecretStr

from coordination.leased_locks import LeasedLocks, LockTable
from coordination.local_locks import LocalLockTable
from coordination.locks import NoLocks, Outcome
from coordination.redis_link import RedisLink
from coordination.redis_locks import RedisLockTable
from tests.contracts.locks import LocksContract, outcome, until
from tests.coordination.server import OwnServer


class TestLocalLocks(LocksContract):
    @pytest.fixture
    def table(self) -> LockTable:
        return LocalLockTable()


class TestFakeredisLocks(LocksContract):
    @pytest.fixture
    def table(self) -> LockTable:
        return RedisLockTable(
            RedisLink(fakeredis.FakeRedis(server=fakeredis.FakeServer()), seconds=1), key_prefix="test:"
        )


class TestValkeyLocks(LocksContract):
    @pytest.fixture
    def table(self, redis_url: str) -> LockTable:
        return table_at(redis_url)


def table_at(url: str, *, key_prefix: str = "test:", seconds: float = 5) -> RedisLockTable:
    return RedisLockTable(RedisLink.to(SecretStr(url), seconds=seconds), key_prefix=key_prefix)


def locks_at(url: str, *, ttl: float = 30, key_prefix: str = "test:", seconds: float = 5) -> LeasedLocks:
    return LeasedLocks(table_at(url, key_prefix=key_prefix, seconds=seconds), ttl=ttl, max_retries=0, retry_delay_ms=20)


@pytest.fixture
def server(own_server: OwnServer) -> Iterator[OwnServer]:
    with own_server:
        yield own_server


def test_the_key_has_the_prefix_an_end_and_a_token_of_its_own(redis_url: str) -> None:
    locks = locks_at(redis_url, key_prefix="mine:")
    tokens = set()
    with redis.Redis.from_url(redis_url) as client:
        for _ in range(3):
            with locks.acquire("a"):
                assert client.keys() == [b"mine:a"]
                assert 0 < client.pttl("mine:a") <= 30_000
                tokens.add(client.get("mine:a"))
            assert client.keys() == []
    assert len(tokens) == 3
    locks.close()


def test_another_prefix_is_another_lock(redis_url: str) -> None:
    one, other = locks_at(redis_url, key_prefix="one:"), locks_at(redis_url, key_prefix="other:")
    with one.acquire("a"):
        assert outcome(one, "a") is Outcome.TAKEN
        assert outcome(other, "a") is Outcome.HELD
    one.close()
    other.close()


def test_a_server_that_forgot_its_scripts_is_told_them_again(redis_url: str) -> None:
    locks = locks_at(redis_url)
    lease = locks.acquire("a")
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
    lease.release()
    assert not lease.lost.is_set()
    assert outcome(locks, "a") is Outcome.HELD
    locks.close()


def test_with_nobody_listening_everybody_goes_on(free_port: int) -> None:
    locks = locks_at(f"redis://:hush@127.0.0.1:{free_port}/0")
    with locks.acquire("a") as lease:
        assert lease.outcome is Outcome.UNGUARDED
    assert locks.times().unguarded == 1
    locks.close()


def test_a_server_that_hangs_holds_nobody_up_for_long(server: OwnServer) -> None:
    locks = locks_at(server.url, seconds=0.3)
    assert outcome(locks, "a") is Outcome.HELD
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    for _ in range(100):
        assert outcome(locks, "a") is Outcome.UNGUARDED
    assert time.monotonic() - began < 10, "100 time-outs are 30 s"
    os.kill(server.pid, signal.SIGCONT)
    until(lambda: outcome(locks, "a") is not Outcome.UNGUARDED)
    locks.close()


def test_a_server_that_was_restarted_is_used_again(server: OwnServer) -> None:
    locks = locks_at(server.url, ttl=1, seconds=0.3)
    lost = locks.acquire("a")
    server.kill()
    assert outcome(locks, "b") is Outcome.UNGUARDED
    assert lost.lost.wait(10)
    server.start()
    until(lambda: outcome(locks, "b") is Outcome.HELD)
    lost.release()
    locks.close()


def test_no_locks_let_everybody_go_on() -> None:
    locks = NoLocks()
    with locks.acquire("a") as one, locks.acquire("a", wait=True) as two:
        assert {one.outcome, two.outcome} == {Outcome.UNGUARDED}
    assert locks.times().waits.count == 0
    locks.close()
