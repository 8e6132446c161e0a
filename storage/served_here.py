"""What backends have in common whose bytes only we can read: no links, and no copies on a service's side."""

from __future__ import annotations

from datetime import timedelta

from storage.interface import ObjectStore, Stored
from storage.object_keys import require_legal


class ServedHere:
    def copy_from(self, source: ObjectStore, source_key: str, key: str) -> Stored | None:
        del source
        require_legal(source_key)
        require_legal(key)
        return None

    def url(self, key: str, *, ttl: timedelta, download_name: str | None = None) -> str | None:
        del ttl, download_name
        require_legal(key)
        return None
