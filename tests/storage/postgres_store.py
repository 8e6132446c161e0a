"""Stores in PostgreSQL for tests, and a way past them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from storage.postgres.options import PostgresOptions
from storage.postgres.store import PostgresStore

SQL = Callable[..., list[tuple[Any, ...]]]


def store_of(url: str, **options: Any) -> PostgresStore:
    made = opened(url, **options)
    made.establish()
    return made


def opened(url: str, **options: Any) -> PostgresStore:
    """Open the store as a process finds it."""
    return PostgresStore("main", PostgresOptions.model_validate({"url": url, **options}))


def store_in(url: str, schema: str, **options: Any) -> Iterator[PostgresStore]:
    """For fixtures; the schema is gone at the end."""
    store = store_of(url, schema=schema, **options)
    yield store
    store.close()
    connect(url)(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def connect(url: str) -> SQL:
    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    return run


@pytest.fixture
def sql(postgres_url: str) -> SQL:
    return connect(postgres_url)
