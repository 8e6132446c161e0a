"""Every setting of the store in PostgreSQL changes what it says."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from core.errors import Misconfigured, NotFound, StoreUnavailable
from core.settings import Settings
from storage.interface import Span
from storage.postgres.store import PostgresStore
from storage.registry import describe, open_stores
from tests.contracts.object_store import MIB, fill, keys, read, sha256
from tests.storage.postgres_store import SQL, connect, store_of

LARGE = bytes(range(256)) * (3 * MIB // 256)


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


@pytest.fixture
def sql(url: str) -> SQL:
    return connect(url)


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., PostgresStore]]:
    made: list[PostgresStore] = []

    def of(**options: Any) -> PostgresStore:
        made.append(store_of(url, **options))
        return made[-1]

    yield of
    for store in made:
        store.close()


@contextmanager
def locked(url: str, table: str = "millrace_objects.blob_object") -> Iterator[None]:
    """Nobody else gets at the table."""
    connection = psycopg2.connect(url)
    connection.cursor().execute(f"LOCK TABLE {table}")
    try:
        yield
    finally:
        connection.close()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def held_snapshots(sql: SQL) -> int:
    found = sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    return int(found[0][0])


def blocked_calls(sql: SQL) -> int:
    found = sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    return int(found[0][0])


def stores_of(**settings: Any) -> PostgresStore:
    found = open_stores(Settings(**settings))["main"]
    assert isinstance(found, PostgresStore)
    found.establish()
    return found


def test_without_a_url_it_lies_beside_the_metadata(url: str, make_database: Callable[[str], str]) -> None:
    other = make_database("template1")
    beside = stores_of(database_url=url, stores={"main": {"kind": "postgres"}})
    elsewhere = stores_of(database_url=url, stores={"main": {"kind": "postgres", "url": other}})
    fill(beside, "a", b"beside")
    fill(elsewhere, "b", b"elsewhere")
    assert (keys(beside), keys(elsewhere)) == (["a"], ["b"])
    assert connect(other)("SELECT key FROM millrace_objects.blob_object") == [("b",)]
    beside.close()
    elsewhere.close()


def test_without_any_url_the_process_does_not_start() -> None:
    with pytest.raises(Misconfigured, match=r"^stores\.main\.url: missing"):
        open_stores(Settings(stores={"main": {"kind": "postgres"}}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "mysql://user:hush@host/db"),
        ("url", "hush"),
        ("schema", "Objects"),
        ("schema", 'x"; DROP TABLE blob'),
        ("schema", "pg_objects"),
        ("schema", "x" * 64),
        ("chunk_size", 0),
        ("chunk_size", "16MiB"),
        ("large_object_threshold", -1),
        ("pool_size", 0),
        ("pool_timeout", 0),
        ("operation_timeout", 0),
        ("reader_snapshots", -1),
        ("snapshot_seconds", 0),
        ("snapshot_idle_seconds", 0),
        ("unfinished_timeout", 0),
    ],
)
def test_options_that_cannot_work(key: str, value: object) -> None:
    given = {"kind": "postgres", "url": "postgresql:///db", key: value}
    with pytest.raises(Misconfigured, match=rf"^stores\.main\.{key}: ") as caught:
        open_stores(Settings(stores={"main": given}))
    assert "hush" not in caught.value.detail


def test_the_options_are_shown_by_their_names_without_the_password() -> None:
    given = {"kind": "postgres", "url": "postgresql://user:hush@host/db", "schema": "pictures"}
    shown = describe(Settings(stores={"main": given}))["main"]
    assert (shown["schema"], shown["chunk_size"], shown["url"]) == ("pictures", 256 * 1024, "**********")


def test_two_schemas_are_two_stores(make: Callable[..., PostgresStore], sql: SQL) -> None:
    one, two = make(schema="one"), make(schema="two")
    fill(one, "a", b"of one")
    fill(two, "a", b"of two")
    fill(two, "b")
    assert (read(one, "a"), read(two, "a"), keys(one)) == (b"of one", b"of two", ["a"])
    one.delete(["a", "b"])
    assert keys(two) == ["a", "b"]
    assert sql("SELECT count(*) FROM one.blob_chunk UNION ALL SELECT count(*) FROM two.blob_chunk") == [(0,), (2,)]


def test_each_object_keeps_its_chunk_size(make: Callable[..., PostgresStore], sql: SQL) -> None:
    data = LARGE[: MIB + 10]
    fill(make(chunk_size=64 * 1024), "small", data)
    store = make(chunk_size=MIB)
    fill(store, "large", data)
    assert sql(
        "SELECT key, count(*), max(octet_length(data)) FROM millrace_objects.blob_chunk"
        " JOIN millrace_objects.blob_object ON id = object_id GROUP BY key ORDER BY key"
    ) == [("large", 2, MIB), ("small", 17, 64 * 1024)]
    for key in ("small", "large"):
        assert read(store, key) == data
        assert read(store, key, Span(65_530, 65_550)) == data[65_530:65_550]
        assert read(store, key, Span(MIB - 3)) == data[MIB - 3 :]


def test_above_the_threshold_it_is_a_large_object(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(large_object_threshold=1000)
    fill(store, "at", bytes(1000))
    fill(store, "above", bytes(1001))
    assert sql("SELECT key FROM millrace_objects.blob_object WHERE large_object IS NOT NULL") == [("above",)]
    assert sql("SELECT sum(octet_length(data)) FROM millrace_objects.blob_chunk") == [(1000,)]


@pytest.mark.parametrize("size", [1, 3])
def test_calls_beyond_the_pool_wait_and_are_told(
    make: Callable[..., PostgresStore], url: str, sql: SQL, size: int
) -> None:
    store = make(pool_size=size, pool_timeout=0.2)
    fill(store, "a")
    with locked(url):
        waiting = [threading.Thread(target=store.head, args=("a",)) for _ in range(size)]
        for thread in waiting:
            thread.start()
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: sql(blocked) == [(size,)])
        with pytest.raises(StoreUnavailable, match=r"^main: .*in use"):
            store.head("a")
    for thread in waiting:
        thread.join(30)
    assert store.head("a").size == 5


def test_a_free_place_is_waited_for(make: Callable[..., PostgresStore], url: str, sql: SQL) -> None:
    store = make(pool_size=1, pool_timeout=30)
    fill(store, "a")
    with locked(url):
        waiting = [threading.Thread(target=store.head, args=("a",)) for _ in range(2)]
        for thread in waiting:
            thread.start()
        time.sleep(0.3)
        assert all(thread.is_alive() for thread in waiting)
    for thread in waiting:
        thread.join(30)
        assert not thread.is_alive()


def test_one_exchange_ends_in_time_and_a_long_transfer_goes_on(make: Callable[..., PostgresStore], url: str) -> None:
    store = make(operation_timeout=1)
    fill(store, "a")
    with locked(url), pytest.raises(StoreUnavailable):
        store.head("a")

    class Slow(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            time.sleep(0.3)
            return super().read(count)

    began = time.monotonic()
    store.put("b", Slow(LARGE), size=len(LARGE), sha256=sha256(LARGE), media_type="image/png")
    assert time.monotonic() - began > 1
    assert read(store, "b") == LARGE


def test_readers_with_a_snapshot_keep_what_they_opened(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(reader_snapshots=1, pool_size=1)
    fill(store, "a", LARGE)
    with store.open("a") as first, store.open("a") as second:
        assert held_snapshots(sql) == 1
        store.delete(["a"])
        fill(store, "a", LARGE[::-1])
        assert first.read() == LARGE
        with pytest.raises(NotFound, match="deleted while it was read"):
            second.read()
    assert read(store, "a") == LARGE[::-1]
    assert held_snapshots(sql) == 0


def test_without_snapshots_no_reader_holds_a_connection(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(reader_snapshots=0, pool_size=1)
    fill(store, "a", LARGE)
    with store.open("a") as body:
        assert held_snapshots(sql) == 0
        assert body.read() == LARGE


def test_a_small_object_is_kept_without_a_snapshot(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(reader_snapshots=0)
    fill(store, "a", LARGE[:MIB])
    with store.open("a") as body:
        store.delete(["a"])
        assert body.read() == LARGE[:MIB]


def test_a_reader_that_stops_early_gives_its_snapshot_back(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(reader_snapshots=1)
    fill(store, "a", LARGE)
    for _ in range(3):
        with store.open("a") as body:
            assert held_snapshots(sql) == 1
            assert body.read(5) == LARGE[:5]
        assert held_snapshots(sql) == 0


def test_an_old_snapshot_is_given_up(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(snapshot_seconds=0.2)
    fill(store, "a", LARGE)
    with store.open("a") as body:
        assert held_snapshots(sql) == 1
        time.sleep(0.3)
        assert body.read(MIB + MIB // 2) == LARGE[: MIB + MIB // 2]
        assert held_snapshots(sql) == 0
        assert body.read() == LARGE[MIB + MIB // 2 :]


def test_the_server_ends_an_idle_snapshot(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make(snapshot_idle_seconds=0.2)
    fill(store, "a", LARGE)
    with store.open("a") as body:
        until(lambda: held_snapshots(sql) == 0)
        assert body.read() == LARGE
    with store.open("a") as body:  # the broken connection costs no place
        assert held_snapshots(sql) == 1


def test_a_cut_snapshot_costs_the_reader_nothing(make: Callable[..., PostgresStore], sql: SQL) -> None:
    store = make()
    fill(store, "a", LARGE)
    with store.open("a") as body:
        sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle in transaction'")
        assert body.read() == LARGE
    assert store.breaker == "closed"
