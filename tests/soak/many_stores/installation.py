"""A stack with four stores of three kinds, hybrid, replicated and aging rules, and what each of its stores holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import psycopg2.extensions

from tests.faults.stack import SETTINGS, Stack
from tests.s3_server import S3Server, s3_server

STORES = ("near", "far", "cloud", "rows")
DIRECTORIES = ("near", "far")
BUCKET, PREFIX = "soak", "millrace/"
MARKER = "millrace-installation"
CATALOGUE = "catalog/"
SMALL_BYTES = 6 << 10

WORK = SETTINGS.replace("maintenance_seconds = 1", "maintenance_seconds = 2")
WORK = WORK.replace("pending_grace_seconds = 3", "pending_grace_seconds = 20")
WORK = WORK.replace("lease_seconds = 4", "lease_seconds = 3").replace("solo_seconds = 8", "solo_seconds = 120")
WORK = WORK.replace("threads = 32", "threads = 64")
WORK = WORK.replace("[work]", "[work]\npolicy_seconds = 60")

PLACES = """
[stores.near]
kind = "filesystem"
root = "{home}/near"
tier = "hot"
promote_up_to = "600KiB"
promote_max_bytes = "100KiB"
[stores.far]
kind = "filesystem"
root = "{home}/far"
[stores.cloud]
kind = "s3"
bucket = "{bucket}"
key_prefix = "{prefix}"
endpoint_url = "{endpoint}"
access_key_id = "key"
secret_access_key = "secret"
addressing_style = "path"
tier = "cold"
[stores.rows]
kind = "postgres"
pool_size = 2
reader_snapshots = 1
[[placement]]
match = "/hybrid/**"
max_bytes = {small}
store = "rows"
[[placement]]
match = "/pairs/**"
kind = "original"
store = "near"
replicas = ["far"]
[[placement]]
match = "/behind/**"
kind = "original"
store = "far"
replicas = ["cloud"]
replication = "background"
[[demotion]]
from = "near"
to = "far"
match = "/aging/**"
kind = "original"
older_than_days = 0.0002
pinned = ["/aging/*/0", "/aging/0"]
[[demotion]]
from = "far"
to = "cloud"
match = "/aging/**"
kind = "original"
older_than_days = 0.0005
pinned = ["/aging/*/0", "/aging/0"]
"""
"""Originals below `/aging` go on after 17 and after 43 seconds, but for pinned ones."""
FOLDERS = ("plain", "hybrid", "pairs", "behind", "aging")


def places_of(path: str, size: int, *, variant: bool) -> set[str]:
    """What the rules above say, once more in other words; of what ages, in the end."""
    folder, *_, name = path.split("/")[1:]
    if folder == "aging" and not variant:
        return {"near"} if name == "0" else {"cloud"}
    if folder == "hybrid" and size <= SMALL_BYTES:
        return {"rows"}
    if folder in ("plain", "hybrid", "aging") or variant:
        return {"near"}
    return {"near", "far"} if folder == "pairs" else {"far", "cloud"}


@dataclass(frozen=True)
class Held:
    size: int
    changed: str
    """When it was written, as exactly as its store tells."""


@dataclass
class Installation:
    stack: Stack
    s3: S3Server
    home: Path
    wrong: list[str] = field(default_factory=list)
    """What was found broken on the way."""

    def root(self, store: str) -> Path:
        return self.home / store

    def holdings(self, store: str) -> dict[str, Held]:
        """Every object, seen past the code under test."""
        if store in DIRECTORIES:
            return {path.name.replace(",", "/"): held for path, held in files(self.root(store) / "objects").items()}
        if store == "cloud":
            pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            return {
                item["Key"].removeprefix(PREFIX): Held(item["Size"], f"{item['LastModified']} {item['ETag']}")
                for page in pages
                for item in page.get("Contents", ())
            }
        found = self.stack.sql("SELECT key, size, touched_at FROM millrace_objects.blob_object WHERE state = 'stored'")
        return {key: Held(size, str(touched)) for key, size, touched in found}

    def read(self, store: str, key: str) -> bytes:
        if store in DIRECTORIES:
            return self.file(store, key).read_bytes()
        if store == "cloud":
            body: bytes = self.s3.client().get_object(Bucket=BUCKET, Key=PREFIX + key)["Body"].read()
            return body
        chunks = self.stack.sql(
            "SELECT c.data FROM millrace_objects.blob_chunk c JOIN millrace_objects.blob_object o"
            " ON o.id = c.object_id WHERE o.key = %s AND o.state = 'stored' ORDER BY c.number",
            key,
        )
        return b"".join(bytes(data) for (data,) in chunks)

    def file(self, store: str, key: str) -> Path:
        return self.root(store) / "objects" / key[:2] / key[2:4] / key

    @contextlib.contextmanager
    def workers_stopped(self) -> Iterator[None]:
        """Nobody repairs, collects, moves or renders."""
        with contextlib.ExitStack() as stopped:
            for name in ("beat", "interactive@", "variants@", "maintenance@"):
                stopped.enter_context(self.stack.stopped("celery", name))
            yield

    def everything(self) -> dict[str, object]:
        """All rows of all tables, all sequences, all objects, all files: but for the heartbeat of the host."""
        found: dict[str, object] = {store: files(self.root(store)) for store in DIRECTORIES}
        found["cloud"] = self.holdings("cloud")
        with contextlib.closing(psycopg2.connect(self.stack.services["database_url"])) as connection:
            connection.set_session(isolation_level=psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
                    " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
                )
                for (table,) in cursor.fetchall():
                    chosen = "t.id::text" if table == "public.host" else "t::text"
                    cursor.execute(f"SELECT {chosen} FROM {table} t ORDER BY 1")
                    found[table] = [row for (row,) in cursor.fetchall()]
                cursor.execute("SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2")
                found["sequences"] = cursor.fetchall()
        return found


def files(root: Path) -> dict[Path, Held]:
    found = {}
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                said = path.stat()
                found[path] = Held(said.st_size, str(said.st_mtime_ns))
    return found


@contextlib.contextmanager
def installed(directory: Path) -> Iterator[Installation]:
    with s3_server(directory / "moto.log") as s3:
        s3.make_bucket(BUCKET)
        values = {"home": directory, "bucket": BUCKET, "prefix": PREFIX, "endpoint": s3.endpoint, "small": SMALL_BYTES}
        with Stack(directory, settings='default_store = "near"\n' + PLACES.format(**values) + WORK) as stack:
            yield Installation(stack, s3, directory)
