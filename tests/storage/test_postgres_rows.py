"""What lies in the tables of a store in PostgreSQL, and what does not lie there any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit

import pytest

from core.errors import Corrupt, Forbidden, StoreFull, StoreUnavailable
from storage.interface import Span
from storage.postgres import schema
from storage.postgres import store as postgres
from storage.postgres.store import PostgresStore
from tests.contracts.object_store import MIB, fill, keys, read
from tests.storage.postgres_store import SQL, connect, opened, store_of

CHUNK = 64 * 1024


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


@pytest.fixture
def sql(url: str) -> SQL:
    return connect(url + "&options=-csearch_path%3Dmillrace_objects")


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    made = store_of(url, chunk_size=CHUNK)
    yield made
    made.close()


@pytest.fixture
def large(url: str) -> Iterator[PostgresStore]:
    made = store_of(url, large_object_threshold=0)
    yield made
    made.close()


def test_chunks_are_not_compressed(store: PostgresStore, sql: SQL) -> None:
    fill(store, "a", bytes(MIB))
    assert sql("SELECT attstorage FROM pg_attribute WHERE attrelid = 'blob_chunk'::regclass AND attname = 'data'") == [
        ("e",)
    ]
    assert sql("SELECT sum(pg_column_size(data)) FROM blob_chunk") == [(MIB,)]


def test_a_range_reads_only_its_chunks(store: PostgresStore, sql: SQL) -> None:
    data = bytes(range(256)) * (4 * CHUNK // 256)
    fill(store, "a", data)
    sql("DELETE FROM blob_chunk WHERE number IN (0, 3)")
    assert read(store, "a", Span(CHUNK, 3 * CHUNK)) == data[CHUNK : 3 * CHUNK]
    assert read(store, "a", Span(2 * CHUNK - 1, 2 * CHUNK + 1)) == data[2 * CHUNK - 1 : 2 * CHUNK + 1]


def test_a_missing_chunk_is_corruption_and_no_short_object(store: PostgresStore, sql: SQL) -> None:
    fill(store, "a", bytes(4 * CHUNK))
    sql("DELETE FROM blob_chunk WHERE number = 2")
    with pytest.raises(Corrupt):
        read(store, "a")


def test_ranges_beyond_two_gibibytes(store: PostgresStore, large: PostgresStore, sql: SQL) -> None:
    """The objects are mostly holes, and only what is there is read."""
    edge = 1 << 31
    fill(large, "large", bytes(4))
    fill(store, "rows", bytes(4))
    sql("SELECT lo_put(large_object, %s, 'abcd') FROM blob_object WHERE key = 'large'", edge - 2)
    sql("UPDATE blob_object SET size = %s, written = %s", edge + 2, edge + 2)
    for number, piece in ((edge // CHUNK - 1, bytes(CHUNK - 2) + b"ab"), (edge // CHUNK, b"cd")):
        sql("INSERT INTO blob_chunk SELECT id, %s, %s FROM blob_object WHERE key = 'rows'", number, piece)
    for key in ("large", "rows"):
        assert read(store, key, Span(edge - 2)) == b"abcd"
        assert read(store, key, Span(edge - 1, edge + 1)) == b"bc"
        assert read(store, key, Span(edge - 7, edge + 100)) == bytes(5) + b"abcd"


def test_deleting_leaves_no_row_no_chunk_and_no_large_object(
    store: PostgresStore, large: PostgresStore, sql: SQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "DELETE_BYTES", 3 * CHUNK)
    for number in range(6):
        fill(store, f"rows/{number}", bytes(2 * CHUNK))
        fill(large, f"large/{number}", bytes(2 * CHUNK))
    assert sql("SELECT count(*) FROM pg_largeobject_metadata") == [(6,)]
    store.delete([*keys(store), "never/was"])
    assert sql("SELECT count(*) FROM blob_object UNION ALL SELECT count(*) FROM blob_chunk") == [(0,), (0,)]
    assert sql("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


def test_a_large_object_that_somebody_unlinked_does_not_keep_its_row(large: PostgresStore, sql: SQL) -> None:
    fill(large, "a", bytes(1000))
    fill(large, "b", bytes(1000))
    sql("SELECT lo_unlink(large_object) FROM blob_object WHERE key = 'a'")
    with pytest.raises(StoreUnavailable):
        read(large, "a")
    large.delete(["a", "b"])
    assert keys(large) == []
    assert sql("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


def test_a_scan_goes_over_many_pages(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "PAGE", 3)
    names = [f"{number:02}" for number in range(12)]
    for name in names:
        fill(store, name)
    assert keys(store) == names
    assert keys(store, "1") == ["10", "11"]


def test_many_may_use_it_first_at_once(url: str, sql: SQL) -> None:
    stores = [store_of(url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: fill(pair[1], f"{pair[0]}"), enumerate(stores)))
    assert len(keys(stores[0])) == 8
    assert sql("SELECT version FROM blob_version") == [(len(schema.STEPS),)]
    for one in stores:
        one.close()


def test_a_later_version_brings_the_tables_up_to_date(url: str, sql: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store_of(url)
    fill(first, "a")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*schema.STEPS, ("ALTER TABLE blob_object ADD COLUMN tier text",)))
        later = opened(url)
        assert keys(later) == ["a"]
    assert sql("SELECT version, tier FROM blob_version, blob_object") == [(len(schema.STEPS) + 1, None)]
    assert read(first, "a") == b"bytes"  # a process that is running goes on
    earlier = opened(url)
    for call in (earlier.establish, lambda: keys(earlier)):
        with pytest.raises(StoreUnavailable, match="newer Millrace"):
            call()
    for one in (first, later, earlier):
        one.close()


def test_a_dropped_schema_is_not_an_empty_store(store: PostgresStore, sql: SQL) -> None:
    fill(store, "a")
    sql("DROP SCHEMA millrace_objects CASCADE")
    for call in (lambda: store.head("a"), lambda: read(store, "a"), lambda: keys(store), lambda: fill(store, "a")):
        with pytest.raises(StoreUnavailable, match="gone"):
            call()


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON blob_chunk EXECUTE FUNCTION full_disk()
"""


@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_a_full_disk_is_said_and_leaves_nothing(store: PostgresStore, sql: SQL, size: int) -> None:
    assert keys(store) == []
    sql(FULL)
    with pytest.raises(StoreFull, match=r"^main: a: the disk of PostgreSQL is full \(53100\)$"):
        fill(store, "a", bytes(size))
    sql("DROP TRIGGER full_disk ON blob_chunk")
    assert sql("SELECT count(*) FROM blob_object") == [(0,)]
    assert store.breaker == "closed"
    fill(store, "a", bytes(size))


@pytest.fixture
def poor(url: str, sql: SQL, postgres_url: str) -> Iterator[Callable[[], PostgresStore]]:
    """A store of a role that may connect, and no more."""
    sql("CREATE ROLE poor LOGIN")
    parts = urlsplit(url)
    made: list[PostgresStore] = []

    def of() -> PostgresStore:
        made.append(opened(urlunsplit(parts._replace(netloc="poor@"))))
        return made[-1]

    yield of
    for one in made:
        one.close()
    sql("DROP OWNED BY poor")
    connect(postgres_url)("DROP ROLE poor")


def test_a_role_that_may_not_make_the_schema_is_told_what_to_run(
    poor: Callable[[], PostgresStore], sql: SQL, url: str
) -> None:
    with pytest.raises(Forbidden, match=r"run `(CREATE SCHEMA \w+ AUTHORIZATION \"poor\";)`") as caught:
        poor().establish()
    sql(caught.value.detail.split("`")[1])
    other = poor()
    other.establish()
    fill(other, "a")
    assert keys(other) == ["a"]


def test_a_missing_right_is_forbidden(poor: Callable[[], PostgresStore], store: PostgresStore, sql: SQL) -> None:
    fill(store, "a")
    other = poor()
    with pytest.raises(Forbidden):
        keys(other)
    sql("GRANT USAGE ON SCHEMA millrace_objects TO poor")
    sql("GRANT SELECT ON ALL TABLES IN SCHEMA millrace_objects TO poor")
    assert read(other, "a") == b"bytes"
    for call in (lambda: fill(other, "b"), lambda: fill(other, "b", bytes(2 * MIB)), lambda: other.delete(["a"])):
        with pytest.raises(Forbidden):
            call()
    assert keys(store) == ["a"]


def test_a_reader_for_whom_the_server_has_no_second_connection(
    poor: Callable[[], PostgresStore], store: PostgresStore, sql: SQL
) -> None:
    fill(store, "a", bytes(3 * MIB))
    sql("GRANT USAGE ON SCHEMA millrace_objects TO poor")
    sql("GRANT SELECT ON ALL TABLES IN SCHEMA millrace_objects TO poor")
    sql("ALTER ROLE poor CONNECTION LIMIT 1")
    assert read(poor(), "a") == bytes(3 * MIB)
