"""What a GET asks PostgreSQL, through the cache.

Two kinds of answers. Assets come and go: they are cached only where settings allow it, and at most `asset_ttl_seconds`
stale. Where the bytes of a live asset and of its variants are is settled, and safe to keep by default: nobody gets so
far without its asset, and an object's key is never used for other bytes.

That there is nothing is never cached: what was just stored shows at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from coordination.cache import Cache
from core import sections
from core.model import Asset, BlobFacts, Replica
from metadata.facade import Metadata
from metadata.paths import AssetPath
from pipeline.lookups import codec

T = TypeVar("T")


class Lookups:
    def __init__(self, metadata: Metadata, cache: Cache, chosen: sections.Cache) -> None:
        self._metadata = metadata
        self._cache = cache
        self._asset_seconds = chosen.asset_ttl_seconds
        self._seconds = chosen.ttl_seconds

    def asset(self, path: AssetPath, entry: int | None) -> Asset | None:
        """The newest of a path, or one entry of it."""
        assets = self._metadata.assets

        def ask() -> Asset | None:
            return assets.newest(path) if entry is None else assets.entry(path, entry)

        key = _asset_key(path, entry)
        return self._through(key, self._asset_seconds, ask, codec.asset_to, codec.asset_from)

    def replicas(self, sha256: bytes) -> Sequence[Replica]:
        """The healthy copies of a blob. One that is not there (any more) makes the list one to forget."""

        def ask() -> Sequence[Replica] | None:
            return self._metadata.blobs.replicas(sha256) or None

        key = _replicas_key(sha256)
        return self._through(key, self._seconds, ask, codec.replicas_to, codec.replicas_from) or ()

    def variant(self, asset_id: UUID, recipe_hash: bytes) -> BlobFacts | None:
        """The bytes of a variant that was found ready lately."""
        return self._known(_variant_key(asset_id, recipe_hash), self._seconds, codec.blob_from)

    def keep_variant(self, asset_id: UUID, recipe_hash: bytes, ready: BlobFacts) -> None:
        self._cache.put(_variant_key(asset_id, recipe_hash), codec.blob_to(ready), self._seconds)

    def forget_variant(self, asset_id: UUID, recipe_hash: bytes) -> None:
        """Its bytes are lost."""
        if self._seconds > 0:
            self._cache.invalidate([_variant_key(asset_id, recipe_hash)], self._seconds)

    def forget_asset(self, path: AssetPath, entry: int) -> None:
        """It may be gone."""
        if self._asset_seconds > 0:
            self._cache.invalidate([_asset_key(path, entry), _asset_key(path, None)], self._asset_seconds)

    def forget_replicas(self, sha256: bytes) -> None:
        if self._seconds > 0:
            self._cache.invalidate([_replicas_key(sha256)], self._seconds)

    def _through(
        self,
        key: str,
        seconds: float,
        ask: Callable[[], T | None],
        to_json: Callable[[T], str],
        from_json: Callable[[str], T],
    ) -> T | None:
        known = self._known(key, seconds, from_json)
        if known is not None:
            return known
        asked = time.monotonic()
        found = ask()
        if found is not None and seconds > 0:
            self._cache.put(key, to_json(found), seconds - (time.monotonic() - asked))
        return found

    def _known(self, key: str, seconds: float, from_json: Callable[[str], T]) -> T | None:
        text = self._cache.get(key) if seconds > 0 else None
        try:
            return None if text is None else from_json(text)
        except (ValueError, LookupError, TypeError):
            return None  # of another version


def _asset_key(path: AssetPath, entry: int | None) -> str:
    return f"asset:{path.hash.hex()}:{'newest' if entry is None else entry}"


def _variant_key(asset_id: UUID, recipe_hash: bytes) -> str:
    return f"variant:{asset_id}:{recipe_hash.hex()}"


def _replicas_key(sha256: bytes) -> str:
    return f"replicas:{sha256.hex()}"
