from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from core.errors import DatabaseUnavailable, Misconfigured
from database.transactions import Database
from metadata import migrate
from metadata.schema import metadata


def test_models_equal_migrations(database_url: str) -> None:
    with migrate.locked(database_url) as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        sequences = sorted(inspect(connection).get_sequence_names())
        numbered = ("catalogue_event", "garbage", "promoted_bytes", "verify_event")
        assert sequences == sorted(["generation_seq", *(f"{name}_id_seq" for name in numbered)])
        path = next(one for one in inspect(connection).get_columns("asset") if one["name"] == "path")
        assert type(path["type"]).__name__ == "LTREE"
        assert _deferred(connection) == {"label", "tag", "asset_variant"}


def _deferred(connection: Connection) -> set[str]:
    """Autogenerate does not compare this, and the lock order rests on it."""
    found = connection.scalars(text("SELECT conrelid::regclass::text FROM pg_constraint WHERE condeferred"))
    return set(found)


def test_up_down_up(empty_database_url: str) -> None:
    assert migrate.current(empty_database_url) is None
    for _ in range(2):
        migrate.upgrade(empty_database_url)
        assert migrate.current(empty_database_url) == migrate.head()
        migrate.downgrade(empty_database_url)
        with migrate.locked(empty_database_url) as connection:
            assert inspect(connection).get_table_names() == ["alembic_version"]
            assert inspect(connection).get_sequence_names() == []


def test_many_starters_migrate_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: migrate.upgrade(empty_database_url), range(6)))
    assert migrate.current(empty_database_url) == migrate.head()


def test_without_ltree_one_line_says_what_to_run(postgres_url: str, empty_database_url: str) -> None:
    password = "50%-of:it@all/"
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP ROLE IF EXISTS nobody_much")
        cursor.execute("CREATE ROLE nobody_much LOGIN PASSWORD %s", (password,))
    connection.close()
    parts = urlsplit(empty_database_url)
    url = urlunsplit(parts._replace(netloc=f"nobody_much:{quote(password, safe='')}@"))
    with pytest.raises(Misconfigured) as caught:
        migrate.upgrade(url)
    assert "CREATE EXTENSION ltree;" in caught.value.detail
    assert "\n" not in caught.value.detail
    assert password not in caught.value.detail


def test_a_database_of_a_newer_version_is_refused(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    with migrate.locked(empty_database_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match="newer"):
        migrate.upgrade(empty_database_url)


def test_a_database_that_was_not_migrated_is_not_ready(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises(DatabaseUnavailable, match="not migrated"):
        database.ping()
    migrate.upgrade(empty_database_url)
    database.ping()
    database.close()
