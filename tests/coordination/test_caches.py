"""Each kind of cache against the contract, bounds, and a Redis that dies, hangs, is wrong about the time."""

from __future__ import annotations

import os
import signal
import time

import fakeredis
import pytest
import redis
from pydantic import SecretStr

from coordination import redis_cache
from coordination.cache import Cache, NoCache
from coordination.local_cache import LocalCache
from coordination.redis_cache import RedisCache
from coordination.redis_link import RedisLink
from tests.contracts.cache import CacheContract
from tests.contracts.locks import until
from tests.coordination.server import OwnServer


class TestLocalCache(CacheContract):
    @pytest.fixture
    def cache(self) -> Cache:
        return LocalCache(100)


class TestFakeredisCache(CacheContract):
    @pytest.fixture
    def cache(self) -> Cache:
        return RedisCache(RedisLink(fakeredis.FakeRedis(server=fakeredis.FakeServer()), seconds=1), key_prefix="test:")


class TestValkeyCache(CacheContract):
    @pytest.fixture
    def cache(self, redis_url: str) -> Cache:
        return cache_at(redis_url)


def cache_at(url: str, *, key_prefix: str = "test:", seconds: float = 5) -> RedisCache:
    return RedisCache(RedisLink.to(SecretStr(url), seconds=seconds), key_prefix=key_prefix)


def works(cache: Cache, key: str) -> bool:
    cache.put(key, "x", 60)
    return cache.get(key) == "x"


def test_a_local_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = LocalCache(10)
    for number in range(10):
        cache.put(str(number), "x", 60)
    for number in range(10, 19):
        assert cache.get("0") == "x"
        cache.put(str(number), "x", 60)
    assert cache.get("0") == "x"
    assert [number for number in range(19) if cache.get(str(number))] == [0, *range(10, 19)]


def test_what_is_in_redis_has_an_end_and_a_prefix(redis_url: str) -> None:
    cache, other = cache_at(redis_url, key_prefix="mine:"), cache_at(redis_url, key_prefix="other:")
    cache.put("a", "x", 60)
    cache.invalidate(["b"], 60)
    assert other.get("a") is None
    with redis.Redis.from_url(redis_url) as client:
        assert sorted(client.keys()) == [b"mine:a", b"mine:b"]
        assert all(0 < client.pttl(key) <= 60_000 for key in ("mine:a", "mine:b"))
    cache.close()
    other.close()


def test_two_processes_see_each_others(redis_url: str) -> None:
    one, two = cache_at(redis_url), cache_at(redis_url)
    one.put("a", "x", 60)
    assert two.get("a") == "x"
    two.invalidate(["a"], 60)
    assert one.get("a") is None
    one.close()
    two.close()


def test_an_entry_that_redis_took_too_late_is_none(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a hang: the time to live begins when the server wakes, the entry's own end does not move."""
    cache = cache_at(redis_url)
    monkeypatch.setattr(redis_cache, "_ms", lambda _: 60_000)
    cache.put("a", "x", 1)
    assert cache.get("a") == "x"
    time.sleep(1.05)
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists("test:a")
    assert cache.get("a") is None
    cache.close()


@pytest.mark.parametrize("found", [b"", b"x", b"99999999999999 \xff", b"nan x"])
def test_what_is_not_ours_is_nothing(redis_url: str, found: bytes) -> None:
    cache = cache_at(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set("test:a", found)
    assert cache.get("a") is None
    cache.close()


def test_with_nobody_listening_it_knows_nothing(free_port: int) -> None:
    cache = cache_at(f"redis://:hush@127.0.0.1:{free_port}/0")
    cache.put("a", "x", 60)
    cache.invalidate(["a"], 60)
    assert cache.get("a") is None
    cache.close()


def test_a_server_that_hangs_costs_nothing(own_server: OwnServer) -> None:
    with own_server as server:
        cache = cache_at(server.url, seconds=0.3)
        assert works(cache, "a")
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(1000):
            assert cache.get("a") is None
        assert time.monotonic() - began < 10, "1000 time-outs are 300 s"
        os.kill(server.pid, signal.SIGCONT)
        until(lambda: works(cache, "b"))
        cache.close()


def test_it_lives_again_after_a_restart(own_server: OwnServer) -> None:
    with own_server as server:
        cache = cache_at(server.url, seconds=0.3)
        assert works(cache, "a")
        server.kill()
        assert not works(cache, "b")
        server.start()
        until(lambda: works(cache, "c"))
        cache.close()


def test_a_full_server_is_no_cache(redis_url: str) -> None:
    cache = cache_at(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            assert not works(cache, "a")
        finally:
            client.config_set("maxmemory", 0)
    until(lambda: works(cache, "b"))
    cache.close()


def test_no_cache_knows_nothing() -> None:
    cache = NoCache()
    assert not works(cache, "a")
    cache.invalidate(["a"], 60)
    cache.close()
