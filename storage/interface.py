"""The one contract of every object store. Backends implement it and do not repeat it.

Keys are relative names of `/`-separated segments from `[A-Za-z0-9._-]`, at most 512 characters; a backend refuses
everything else (`..`, absolute, empty) with `ValueError` before it touches anything: Millrace makes the keys, so a bad
one is a bug and not an input. Objects are immutable: no key is ever written twice with other bytes.

Errors: `NotFound` (there is no such object), `Forbidden` (credentials or rights refused), `StoreUnavailable` (time-out,
refused connection, 5xx: try later), `NoStore` (it was never established, or its disk is not mounted), `StoreFull` (no
space or quota left: try later, and tell the operator), `Archived` (the object to read or to copy is in an archive:
`restore` it first), `Corrupt` (the bytes do not have the promised size or hash), `AlreadyExists` (the key holds other
bytes), `InvalidRange`. No library's own exception leaves a backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol

from core.breaker import BreakerState


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` (included) to `stop` (excluded, None: to the end)."""

    start: int
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says of one object. `sha256` is None where the store does not know it."""

    key: str
    size: int
    modified_at: datetime
    sha256: bytes | None = None


class ObjectStore(Protocol):
    name: str
    """The name under which settings know this store."""

    @property
    def breaker(self) -> BreakerState:
        """`open`: the store did not answer lately, and calls fail at once. Always `closed` where nothing can hang."""

    def establish(self) -> None:
        """Make what the objects lie in (directories, tables), where it is not there yet. No other method does: a store
        whose disk is not mounted must not begin anew below the mount point. Once, before anything is in it."""

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        """Create the object from `body` (read from its present position), all or nothing.

        Reads exactly `size` bytes and hashes them on the way: a shorter or longer body or another hash is `Corrupt`
        and leaves nothing behind. If the key exists with this size (and hash, where the store knows it), that counts
        as success; with other bytes it is `AlreadyExists`. Memory is bounded whatever the size.
        """

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        """Read the object or a span of it, natively ranged. A span that starts at or beyond the end is `InvalidRange`;
        one that ends beyond it is cut at the end."""

    def head(self, key: str) -> Stored: ...

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        """Objects whose key starts with `prefix` and sorts after `after`, in key order (by code point), lazily.
        Uploads in progress and temporary files never show."""

    def delete(self, keys: Iterable[str]) -> None:
        """Idempotent, in bulk. Other keys that merely share a prefix stay."""

    def copy_from(self, source: ObjectStore, source_key: str, key: str) -> Stored | None:
        """Create `key` from the `source_key` of another store, on the server's side where both can. None: stream it
        yourself. What `head` says of the hash afterwards may come from the source: who must know reads it back."""

    def url(self, key: str, *, ttl: timedelta, download_name: str | None = None) -> str | None:
        """A link that a client can use without credentials until `ttl` has passed. None: serve it yourself."""

    def restore(self, key: str) -> int:
        """Ask for an object that is in an archive; asking again changes nothing. Returns after how many seconds it can
        be read, as a rule. 0: now."""

    def sweep_unfinished(self) -> int:
        """Remove what writers left that died in the middle of a `put`, once it is old enough to be no living writer's,
        and only what is this store's own. Returns how many were removed."""

    def close(self) -> None: ...
