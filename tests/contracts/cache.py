"""What every cache must do. A test subclasses this and gives it a `cache`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from coordination.cache import Cache

LONG_SECONDS = 10.0
"""A wait that fails the test."""


class CacheContract:
    @pytest.fixture
    def cache(self) -> Cache:
        raise NotImplementedError

    def test_what_was_put_is_there(self, cache: Cache) -> None:
        assert cache.get("k") is None
        cache.put("k", "text ä 1 2", 60)
        assert cache.get("k") == "text ä 1 2"
        assert cache.get("other") is None

    def test_it_goes_after_its_time(self, cache: Cache) -> None:
        cache.put("short", "x", 0.3)
        cache.put("long", "x", 60)
        time.sleep(0.35)
        assert cache.get("short") is None
        assert cache.get("long") == "x"
        cache.put("short", "y", 60)
        assert cache.get("short") == "y"

    def test_being_read_does_not_prolong_it(self, cache: Cache) -> None:
        cache.put("k", "x", 0.3)
        ends = time.monotonic() + 0.35
        while time.monotonic() < ends:
            cache.get("k")
            time.sleep(0.02)
        assert cache.get("k") is None

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    def test_with_no_time_left_nothing_is_put(self, cache: Cache, seconds: float) -> None:
        cache.put("k", "x", seconds)
        assert cache.get("k") is None

    def test_a_second_put_changes_nothing(self, cache: Cache) -> None:
        """The later one may have been read earlier."""
        cache.put("k", "first", 60)
        cache.put("k", "second", 60)
        assert cache.get("k") == "first"

    def test_what_is_invalidated_is_gone_at_once(self, cache: Cache) -> None:
        for key in ("a", "b", "c"):
            cache.put(key, key, 60)
        cache.invalidate(["a", "b", "unknown"], 60)
        assert [cache.get(key) for key in ("a", "b", "c", "unknown")] == [None, None, "c", None]

    def test_who_read_before_it_was_invalidated_puts_too_late(self, cache: Cache) -> None:
        cache.invalidate(["k"], 1)
        cache.put("k", "stale", 60)
        assert cache.get("k") is None
        deadline = time.monotonic() + LONG_SECONDS
        while cache.get("k") is None:
            assert time.monotonic() < deadline
            cache.put("k", "fresh", 60)
            time.sleep(0.02)

    def test_threads_share_it(self, cache: Cache) -> None:
        def use(number: int) -> None:
            for step in range(30):
                cache.put(f"{step % 7}", f"{step % 7}", 60)
                assert cache.get(f"{step % 7}") in (None, f"{step % 7}")
                if step % 5 == number % 5:
                    cache.invalidate([f"{step % 7}"], 0.001)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
