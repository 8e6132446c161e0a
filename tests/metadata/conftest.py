from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from database.transactions import Database
from metadata.facade import Metadata
from tests.metadata.made import Ingester

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def metadata(database_url: str) -> Iterator[Metadata]:
    opened = Metadata.of(Database(database_url, pool_size=40, deadline_seconds=60))
    yield opened
    opened.close()


@pytest.fixture
def ingester(metadata: Metadata) -> Ingester:
    return Ingester(metadata)


@pytest.fixture
def query(database_url: str) -> Iterator[Query]:
    """Past everything that is tested."""
    connection = psycopg2.connect(database_url)
    connection.autocommit = True

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()
