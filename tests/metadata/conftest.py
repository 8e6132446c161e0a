from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from database.transactions import Database
from metadata.facade import Metadata
from tests.metadata.made import Ingester
from tests.metadata.promoting import SIZE

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


@pytest.fixture
def brought(metadata: Metadata, query: Query) -> list[bytes]:
    """Blobs of one size, in the store that their rule names."""
    query(
        "INSERT INTO blob (sha256, size, media_type)"
        " SELECT sha256(n::text::bytea), %s, '' FROM generate_series(1, 16) n",
        SIZE,
    )
    made = query(
        "INSERT INTO replica (blob, store, generation, state) SELECT sha256, 'main', nextval('generation_seq'),"
        " 'healthy' FROM blob RETURNING blob"
    )
    return [bytes(sha256) for (sha256,) in made]
