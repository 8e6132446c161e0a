"""What backends have in common whose bytes only we can read: no links, no copies on a service's side, no archive."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from storage.interface import ObjectStore, Stored
from storage.object_keys import require_legal


class _Asked(Protocol):
    def head(self, key: str) -> Stored: ...


class ServedHere:
    def establish(self) -> None:
        """Do nothing: there is nothing to make."""

    def copy_from(self, source: ObjectStore, source_key: str, key: str) -> Stored | None:
        del source
        require_legal(source_key)
        require_legal(key)
        return None

    def url(self, key: str, *, ttl: timedelta, download_name: str | None = None) -> str | None:
        del ttl, download_name
        require_legal(key)
        return None

    def restore(self: _Asked, key: str) -> int:
        self.head(key)
        return 0
