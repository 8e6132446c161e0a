"""The store in PostgreSQL against the contract: as chunk rows, and as large objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from storage.interface import ObjectStore
from storage.postgres.store import PostgresStore
from tests.contracts.object_store import MIB, ObjectStoreContract
from tests.storage.postgres_store import SQL, sql, store_in

__all__ = ["sql"]  # fixtures are found by their names


@pytest.fixture(scope="class")
def in_chunks(postgres_url: str) -> Iterator[PostgresStore]:
    yield from store_in(postgres_url, "chunks", chunk_size=64 * 1024)


@pytest.fixture(scope="class")
def in_large_objects(postgres_url: str) -> Iterator[PostgresStore]:
    yield from store_in(postgres_url, "large_objects", large_object_threshold=0)


class TestPostgresChunks(ObjectStoreContract):
    part_size = MIB

    @pytest.fixture
    def store(self, in_chunks: PostgresStore) -> ObjectStore:
        return in_chunks

    @pytest.fixture
    def residue(self, sql: SQL) -> Callable[[], list[str]]:
        return lambda: [key for (key,) in sql("SELECT key FROM chunks.blob_object WHERE state = 'pending'")]


class TestPostgresLargeObjects(ObjectStoreContract):
    part_size = MIB

    @pytest.fixture
    def store(self, in_large_objects: PostgresStore) -> ObjectStore:
        return in_large_objects

    @pytest.fixture
    def residue(self, sql: SQL) -> Callable[[], list[str]]:
        """Unfinished objects, and large objects that no row names."""
        return lambda: [
            str(found)
            for (found,) in sql(
                "SELECT key FROM large_objects.blob_object WHERE state = 'pending' UNION ALL"
                " SELECT CAST(oid AS text) FROM pg_largeobject_metadata"
                " WHERE oid NOT IN (SELECT large_object FROM large_objects.blob_object WHERE large_object IS NOT NULL)"
            )
        ]
