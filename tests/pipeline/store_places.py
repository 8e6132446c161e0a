"""Where the objects of a store lie, for tests that take the place away from under it, or put another one there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

import psycopg2

from tests.s3_server import S3Server


class Place(Protocol):
    def options(self) -> dict[str, Any]:
        """Return the options of the store, for the settings."""

    def take_away(self) -> None:
        """Take the place away: what is there then is empty."""

    def bring_back(self) -> None: ...

    def copy(self) -> None:
        """Take a snapshot."""

    def restore(self) -> None:
        """Put the snapshot in the place of what is there."""

    def holdings(self) -> set[str]:
        """Return the names of all that lies there, our own objects or not."""


class Directory:
    """A mount point: taken away, it is an empty directory, or has what a process once wrote below the mount."""

    def __init__(self, root: Path, *, below: tuple[str, ...] = ()) -> None:
        self.root = root
        self._below = below
        self._aside = root.with_name(root.name + ".aside")
        self._snapshot = root.with_name(root.name + ".snapshot")

    def options(self) -> dict[str, Any]:
        return {"kind": "filesystem", "root": str(self.root)}

    def take_away(self) -> None:
        self.root.rename(self._aside)
        for name in ("", *self._below):
            (self.root / name).mkdir(exist_ok=True)

    def bring_back(self) -> None:
        shutil.rmtree(self.root)
        self._aside.rename(self.root)

    def copy(self) -> None:
        shutil.copytree(self.root, self._snapshot)

    def restore(self) -> None:
        shutil.rmtree(self.root)
        self._snapshot.rename(self.root)

    def holdings(self) -> set[str]:
        return {path.name for path in self.root.rglob("*") if path.is_file()}


class Bucket:
    def __init__(self, server: S3Server, name: str) -> None:
        self._server, self._name, self._client = server, name, server.client()
        for bucket in (name, f"{name}-aside", f"{name}-snapshot"):
            server.make_bucket(bucket)

    def options(self) -> dict[str, Any]:
        keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
        return {"kind": "s3", "bucket": self._name, "endpoint_url": self._server.endpoint, **keys}

    def take_away(self) -> None:
        self._copy(self._name, f"{self._name}-aside")
        self._empty()

    def bring_back(self) -> None:
        self._empty()
        self._copy(f"{self._name}-aside", self._name)

    def copy(self) -> None:
        self._copy(self._name, f"{self._name}-snapshot")

    def restore(self) -> None:
        self._empty()
        self._copy(f"{self._name}-snapshot", self._name)

    def holdings(self) -> set[str]:
        return set(self._server.keys(self._name))

    def _copy(self, source: str, target: str) -> None:
        for key in self._server.keys(source):
            self._client.copy_object(Bucket=target, Key=key, CopySource={"Bucket": source, "Key": key})

    def _empty(self) -> None:
        for key in self._server.keys(self._name):
            self._client.delete_object(Bucket=self._name, Key=key)


class Schema:
    """Of a store in PostgreSQL: taken away, there is a database without it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def options(self) -> dict[str, Any]:
        return {"kind": "postgres", "url": self._url, "schema": "blobs"}

    def take_away(self) -> None:
        self._run("ALTER SCHEMA blobs RENAME TO aside")

    def bring_back(self) -> None:
        self._run("DROP SCHEMA IF EXISTS blobs CASCADE; ALTER SCHEMA aside RENAME TO blobs")

    def copy(self) -> None:
        self._run(
            "CREATE SCHEMA snapshot; "
            + "; ".join(f"CREATE TABLE snapshot.{one} AS TABLE blobs.{one}" for one in TABLES)
        )

    def restore(self) -> None:
        for table in reversed(TABLES):
            self._run(f"DELETE FROM blobs.{table}")
        for table in TABLES:
            self._run(f"INSERT INTO blobs.{table} OVERRIDING SYSTEM VALUE SELECT * FROM snapshot.{table}")

    def holdings(self) -> set[str]:
        if not self._run("SELECT 1 WHERE to_regclass('blobs.blob_object') IS NOT NULL"):
            return set()
        return {key for (key,) in self._run("SELECT key FROM blobs.blob_object")}

    def _run(self, statement: str) -> list[Any]:
        connection = psycopg2.connect(self._url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


TABLES = ("blob_object", "blob_chunk")
