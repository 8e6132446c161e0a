"""Several real stores behind the face of one, put together in the only way there is: rows and placement rules.

An asset whose path is the key stands for the object. Its id is made from the key, as that of an upload with an
`Idempotency-Key` is, so PostgreSQL decides who creates it. What goes on in the background of a running Millrace is here
done when a test says so: `copy` fills replicas that are wanted, also those for faster reading, and `settle` gives up
reservations and collects garbage, too.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from uuid import UUID, uuid4, uuid5

import psycopg2

from core.breaker import BreakerState
from core.errors import AlreadyExists, NotFound, Superseded
from core.model import Asset, BlobFacts, Details, ImageFacts, Manifest
from core.sections import Locks, PathRule, Placement, Staging, Work
from core.settings import Settings
from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion
from pipeline.replicas import repair, sources
from pipeline.replicas.put_reserved import place
from pipeline.services import Services, build
from pipeline.stores.read_tracking import WrittenAccesses
from storage.interface import Span, Stored
from storage.object_keys import require_legal
from storage.reading import verified_blocks
from storage.served_here import ServedHere

NAMESPACE = UUID("4e6c1d0a-1a0f-4f3e-9d37-6f9f6f2f3b51")
HOST = UUID(int=1)
PAGE = 8
ROUNDS = 10
PATIENCE_SECONDS = 20

WORK = Work(backoff_seconds=0.01, backoff_cap_seconds=0.05, gc_grace_seconds=0, pending_grace_seconds=0)


@dataclass(frozen=True)
class Layout:
    """Stores by their names, and the rules that say which of them holds what."""

    stores: Mapping[str, Mapping[str, Any]]
    default_store: str
    rules: Sequence[Placement]

    def open(self, home: Path, database_url: str) -> Services:
        settings = Settings(
            home=home,
            database_url=database_url,
            stores={name: self._rooted(home / name, given) for name, given in self.stores.items()},
            default_store=self.default_store,
            placement=tuple(self.rules),
            paths=(PathRule(match="/**"),),
            work=WORK,
            staging=Staging(sync="none"),
            locks=Locks(kind="local", retry_delay_ms=1),
        )
        return build(settings, pool_size=20)

    @staticmethod
    def _rooted(root: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        return {**given, "root": str(root), "sync_to_disk": False} if given["kind"] == "filesystem" else dict(given)


class Composite(ServedHere):
    def __init__(self, services: Services, folder: str) -> None:
        self.name = "composite"
        self.services = services
        self._folder = f"/{folder}/"
        """Before every key, so that tests do not meet each other's tombstones."""
        assert services.settings.database_url is not None
        self._connection = psycopg2.connect(services.settings.database_url.get_secret_value())
        self._connection.autocommit = True
        self._looking = Lock()

    @property
    def breaker(self) -> BreakerState:
        states = [store.breaker for store in self.services.stores.values()]
        return next((state for state in states if state != "closed"), "closed")

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        path = self.path(key)
        blob = BlobFacts(sha256, size, media_type)
        with self._staged(body, blob) as staged:
            asset = None
            while asset is None:
                entry = self._next_entry(path)  # first: with a stale number the asset id is known, which is a conflict
                asset = self.services.metadata.assets.newest(path)
                if asset is None:
                    self._record(path, entry, blob, staged)
                    asset = self.services.metadata.assets.entry(path, entry)
        if asset.blob.sha256 != sha256:
            raise AlreadyExists(f"{key} holds other bytes")
        return _stored(key, asset)

    @contextmanager
    def open(self, key: str, span: Span | None = None) -> Iterator[BinaryIO]:
        with sources.stream(self.services, self.asset(key).blob.sha256, span) as body:
            yield body

    def head(self, key: str) -> Stored:
        return _stored(key, self.asset(key))

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        while page := self._page(prefix, after):
            yield from page
            after = page[-1].key

    def delete(self, keys: Iterable[str]) -> None:
        asked = list(keys)
        for key in asked:
            require_legal(key)
        gone = False
        for text, entry in self._live(asked):
            deletion.delete(self.services, AssetPath.from_text(text), entry, purge=False)
            gone = True
        if gone:
            maintenance.collect_garbage(self.services)

    def sweep_unfinished(self) -> int:
        return maintenance.sweep_stores(self.services)

    def close(self) -> None:
        self._connection.close()

    # -- beside the contract

    def path(self, key: str) -> AssetPath:
        require_legal(key)
        return AssetPath.from_text(self._folder + key)

    def asset(self, key: str) -> Asset:
        found = self.services.metadata.assets.newest(self.path(key))
        if found is None:
            raise NotFound(f"{self.name} has no object {key}")
        return found

    def wanted(self, key: str, blob: BlobFacts) -> frozenset[str]:
        """The stores that a rule names for these bytes under the key."""
        return self.services.placements.plan(self.path(key).text, blob).stores

    def held(self, sha256: bytes) -> list[str]:
        """The stores that have the bytes, once for each object, by what they list and hold; no row is asked."""
        found = []
        for name, store in self.services.stores.items():
            for one in store.scan(sha256.hex()):
                with store.open(one.key) as body:
                    assert hashlib.file_digest(body, "sha256").digest() == sha256  # type: ignore[arg-type]  # any body
                found.append(name)
        return sorted(found)

    def replicas(self, sha256: bytes) -> dict[str, str]:
        """The state in which each store's replica is recorded."""
        return dict(self._sql("SELECT store, state FROM replica WHERE blob = %s", sha256))  # type: ignore[arg-type]  # pairs

    def condemned(self) -> list[tuple[Any, ...]]:
        """What was ever found missing or corrupt."""
        return self._sql("SELECT store, result, detail FROM verify_event WHERE result IN ('missing', 'corrupt')")

    def promoted(self, sha256: bytes) -> frozenset[str]:
        """The stores that have a copy for faster reading."""
        query = "SELECT store FROM replica WHERE blob = %s AND promoted_at IS NOT NULL"
        return frozenset(store for (store,) in self._sql(query, sha256))

    def copy(self, sha256: bytes) -> None:
        """Until every replica that is wanted is there."""
        if isinstance(self.services.accesses, WrittenAccesses):
            self.services.accesses.write()
        last = time.monotonic() + PATIENCE_SECONDS
        while set(self.replicas(sha256).values()) - {"healthy"}:
            assert time.monotonic() < last, self.replicas(sha256)
            if not repair.repair(self.services):
                time.sleep(0.005)  # another thread has it, or it is not due yet

    def settle(self) -> list[str]:
        """Returns what is left over all the same."""
        for _ in range(ROUNDS):
            if not (left := self.left_over()):
                break
            repair.repair(self.services)
            maintenance.give_up_reservations(self.services)
            maintenance.collect_garbage(self.services)
        return left

    def left_over(self) -> list[str]:
        """What is on its way in or out, by the rows, and objects that no row names."""
        rows = "SELECT state || ' in ' || store FROM replica WHERE state <> 'healthy' UNION ALL SELECT key FROM garbage"
        left = [str(found) for (found,) in self._sql(rows)]
        healthy = self._sql("SELECT store, encode(blob, 'hex') || '.' || generation FROM replica")
        objects = [(name, one.key) for name, store in self.services.stores.items() for one in store.scan()]
        left += [f"{name} has {key}" for name, key in set(objects) ^ set(healthy)]
        files = [path for name in self.services.stores for path in (self.services.settings.home / name).glob("tmp/*")]
        return left + [str(path) for path in files]

    def _sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._looking, self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    # -- the way in

    @contextmanager
    def _staged(self, body: BinaryIO, blob: BlobFacts) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile(dir=self.services.settings.home) as file:
            for block in verified_blocks(body, size=blob.size, sha256=blob.sha256):
                file.write(block)
            yield file  # type: ignore[misc]  # a temporary file is one

    def _next_entry(self, path: AssetPath) -> int:
        assets = self.services.metadata.assets
        return next(number for number in count() if not assets.was(path, number))

    def _record(self, path: AssetPath, entry: int, blob: BlobFacts, staged: BinaryIO) -> None:
        made = _manifest(path, entry, blob)
        plan = self.services.placements.plan(path.text, blob)
        while True:
            reserved = self.services.metadata.blobs.reserve([(blob, name) for name in plan.now], timedelta(0))
            replicas = [place(self.services, self.services.store(one.replica.store), one, staged) for one in reserved]
            try:
                recorded = self.services.metadata.assets.record(made, replicas, (), later=plan.later)
            except Superseded:
                continue
            if recorded.conflict:
                raise AlreadyExists(f"{path.text} holds other bytes")
            return

    # -- keys

    def _page(self, prefix: str, after: str) -> list[Stored]:
        query = (
            "SELECT path_text, size, asset.created_at, sha256 FROM asset JOIN blob ON blob = sha256"
            ' WHERE starts_with(path_text, %s) AND path_text COLLATE "C" > %s ORDER BY path_text COLLATE "C" LIMIT %s'
        )
        found = self._sql(query, self._folder + prefix, self._folder + after, PAGE)
        return [Stored(text.removeprefix(self._folder), size, at, bytes(digest)) for text, size, at, digest in found]

    def _live(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        paths = [self._folder + key for key in keys]
        return self._sql("SELECT path_text, entry FROM asset WHERE path_text = ANY(%s)", paths)


def _manifest(path: AssetPath, entry: int, blob: BlobFacts) -> Manifest:
    return Manifest(
        id=uuid4(),
        asset_id=uuid5(NAMESPACE, f"{path.text} {entry}"),
        host_id=HOST,
        path=path.text,
        size=blob.size,
        sha256=blob.sha256,
        image=ImageFacts(blob.media_type, 1, 1, 1),
        details=Details(),
        accepted_at=datetime.now(UTC),
        fingerprint=hashlib.sha256(path.text.encode() + blob.sha256).digest(),
        keyed=True,
    )


def _stored(key: str, asset: Asset) -> Stored:
    return Stored(key, asset.blob.size, asset.created_at, asset.blob.sha256)
