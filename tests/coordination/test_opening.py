"""What each key of `[locks]` and `[cache]` changes."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from coordination import later, leased_locks
from coordination.cache import Cache
from coordination.leased_locks import LeasedLocks
from coordination.locks import Locks, Outcome
from coordination.opening import open_cache, open_locks
from core import settings
from core.errors import Misconfigured
from core.sections import Cache as CacheSettings
from core.settings import Settings


def locks(redis_url: str | None = None, **chosen: Any) -> Locks:
    return open_locks(Settings(redis_url=redis_url, locks=chosen), lambda: "here:")  # type: ignore[arg-type]


def cache(redis_url: str | None = None, **chosen: Any) -> Cache:
    return open_cache(Settings(redis_url=redis_url, cache=chosen), lambda: "here:")  # type: ignore[arg-type]


def both(one: Locks, other: Locks) -> list[Outcome]:
    """What two processes are told that ask for the same, one after the other."""
    with one.acquire("a") as first, other.acquire("a") as second:
        found = [first.outcome, second.outcome]
    one.close()
    other.close()
    return found


def seen_by_another(one: Cache, other: Cache) -> tuple[bool, bool]:
    """Whether what a process put is there for itself, and for another."""
    one.put("a", "x", 60)
    found = (one.get("a") == "x", other.get("a") == "x")
    one.close()
    other.close()
    return found


def test_kind_says_who_shares_a_lock(redis_url: str) -> None:
    held, taken, unguarded = Outcome.HELD, Outcome.TAKEN, Outcome.UNGUARDED
    assert both(locks(redis_url), locks(redis_url)) == [held, taken]
    assert both(locks(redis_url, kind="local"), locks(redis_url, kind="local")) == [held, held]
    assert both(locks(redis_url, kind="none"), locks(redis_url, kind="none")) == [unguarded, unguarded]
    assert both(locks(redis_url, kind="always"), locks(redis_url, kind="always")) == [held, held]
    assert both(locks(redis_url, kind="never"), locks(redis_url, kind="never")) == [taken, taken]


class Host:
    """What it knows of its installation."""

    prefix: str | None = None

    def __call__(self) -> str | None:
        return self.prefix


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "ASK_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_process_shares_its_locks_as_soon_as_its_host_knows_the_installation(redis_url: str) -> None:
    host, settings = Host(), Settings(redis_url=redis_url)  # type: ignore[arg-type]
    early, other = open_locks(settings, host), open_locks(settings, lambda: "here:")
    with early.acquire("before") as before:
        assert both(early, early) == [Outcome.HELD, Outcome.TAKEN], "its own threads meet"
        host.prefix = "here:"
        with other.acquire("b"):
            assert early.acquire("b").outcome is Outcome.TAKEN
        with early.acquire("c"):
            assert other.acquire("c").outcome is Outcome.TAKEN
    assert before.outcome is Outcome.HELD
    assert not before.lost.is_set(), "it ends where it began"
    early.close()
    other.close()


@pytest.mark.usefixtures("at_once")
def test_a_process_shares_its_cache_as_soon_as_its_host_knows_the_installation(redis_url: str) -> None:
    host, settings = Host(), Settings(redis_url=redis_url, cache=CacheSettings(kind="redis"))  # type: ignore[arg-type]
    early, other = open_cache(settings, host), open_cache(settings, lambda: "here:")
    early.put("own", "x", 60)
    assert (early.get("own"), other.get("own")) == ("x", None)
    host.prefix = "here:"
    assert early.get("own") is None
    assert seen_by_another(early, other) == (True, True)


def test_a_prefix_that_is_not_known_yet_is_not_asked_for_at_every_call(redis_url: str) -> None:
    asked: list[int] = []
    settings = Settings(redis_url=redis_url, cache=CacheSettings(kind="redis"))  # type: ignore[arg-type]
    made = open_cache(settings, lambda: asked.append(1))
    for _ in range(100):
        made.get("a")
    assert len(asked) < 100
    made.close()


def test_without_redis_locks_and_cache_are_the_processs_own() -> None:
    alone = locks()
    assert both(alone, alone) == [Outcome.HELD, Outcome.TAKEN]
    assert seen_by_another(cache(kind="redis"), cache(kind="redis")) == (True, False)


@pytest.mark.parametrize(("chosen", "key"), [({}, b"here:lock:a"), ({"key_prefix": "x/"}, b"here:x/a")])
def test_key_prefix_of_locks(redis_url: str, chosen: dict[str, str], key: bytes) -> None:
    made = locks(redis_url, **chosen)
    with redis.Redis.from_url(redis_url) as client, made.acquire("a"):
        assert client.keys() == [key]
    made.close()


@pytest.mark.parametrize("ttl", [2, 50])
def test_ttl_of_locks(redis_url: str, ttl: int) -> None:
    made = locks(redis_url, ttl=ttl)
    with redis.Redis.from_url(redis_url) as client, made.acquire("a"):
        assert (ttl - 2) * 1000 < client.pttl("here:lock:a") <= ttl * 1000
    made.close()


def test_max_retries_and_retry_delay_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(leased_locks, "pause", pauses.append)
    made = locks(kind="never", max_retries=7, retry_delay_ms=4000)
    assert made.acquire("a", wait=True).outcome is Outcome.TAKEN
    assert len(pauses) == 7
    assert all(2 <= pause <= 6 for pause in pauses)


def test_kind_says_who_shares_a_cache(redis_url: str) -> None:
    assert seen_by_another(cache(redis_url, kind="redis"), cache(redis_url, kind="redis")) == (True, True)
    assert seen_by_another(cache(redis_url), cache(redis_url)) == (True, False)
    assert seen_by_another(cache(redis_url, kind="none"), cache(redis_url, kind="none")) == (False, False)


@pytest.mark.parametrize(("chosen", "key"), [({}, b"here:cache:a"), ({"key_prefix": "x/"}, b"here:x/a")])
def test_key_prefix_of_the_cache(redis_url: str, chosen: dict[str, str], key: bytes) -> None:
    made = cache(redis_url, kind="redis", **chosen)
    made.put("a", "x", 60)
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys() == [key]
    made.close()


def test_max_entries() -> None:
    made = cache(max_entries=3)
    for number in range(5):
        made.put(str(number), "x", 60)
    assert [number for number in range(5) if made.get(str(number))] == [2, 3, 4]


@pytest.mark.parametrize("kind", ["always", "never"])
def test_a_lock_that_lies_is_refused_outside_of_tests(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_LOCKS__KIND", kind)
    monkeypatch.delenv("MILLRACE_FAILPOINTS", raising=False)
    with pytest.raises(Misconfigured, match=r"locks\.kind"):
        settings.load()
    monkeypatch.setenv("MILLRACE_FAILPOINTS", "/nowhere")
    assert settings.load().locks.kind == kind


def test_a_lock_of_a_lying_table_is_never_lost() -> None:
    made = locks(kind="always", ttl=1)
    assert isinstance(made, LeasedLocks)
    with made.acquire("a") as lease:
        time.sleep(0.5)  # past a renewal
        assert not lease.lost.is_set()
    assert not lease.lost.is_set()
