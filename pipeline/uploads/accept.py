"""Take in one upload: local disk is all it needs.

Admission comes before the first byte is asked for; then the body streams into staging and is hashed and looked at on
the way. Leaving at any point before the commit leaves nothing behind; the commit is one rename of a complete, synced
file. Nothing here waits for PostgreSQL longer than a moment, and only to answer a repeated Idempotency-Key early:
whoever is missed is settled by ingest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID, uuid5

from uuid_utils import compat

from core import clock
from core.errors import BadRequest, DigestMismatch, IdempotencyConflict, TooLarge, Unavailable, UnsupportedType
from core.failpoints import failpoint
from core.model import Details, Durability, Manifest
from core.sections import Limits
from imaging.probe import probe, sniff
from metadata.paths import AssetPath
from pipeline.services import Services
from pipeline.uploads.hashing import Sha256
from storage.staging.staging import Incoming

TENANT = "default"
KEY_NAMESPACE = UUID("6d8f7f0a-3c55-5b0e-9d5e-0b6c1f5a2e11")
DATABASE_PATIENCE_SECONDS = 0.3

SNIFFED = 32
"""So many first bytes tell every accepted type."""

PRINTABLE = range(0x20, 0x7F)

_compact = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Offer(Protocol):
    """What a client sends, however it is wrapped."""

    @property
    def expected(self) -> int | None:
        """The size, or at least a bound on it, where the client said it before."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The file's bytes in order. A piece stays as it is until the one after the next is asked for."""

    @property
    def details(self) -> Details:
        """Known at the latest when all pieces have been taken. So are the digests."""

    @property
    def digests(self) -> Sequence[bytes]:
        """The SHA-256 values the client promised for the file."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """`manifest.id` is the first upload's where the Idempotency-Key was met again."""

    manifest: Manifest
    durability: Durability
    host_id: UUID | None
    """The host to ask; None where the first upload was accepted somewhere else and is recorded."""
    replay: bool = False


def accept(services: Services, offer: Offer, path: AssetPath, key: str | None) -> Accepted:
    """
    Raises:
        Rejected: the upload cannot be taken as it is; the subclass and its sentence say why.
        StagingFull: no room on this host's disk.
    """
    limits = services.settings.limits
    staging = services.staging
    check_announced_size(offer.expected, limits)
    asset_id = None if key is None else keyed_asset_id(key)
    with staging.begin(compat.uuid7(), expected=offer.expected) as incoming:
        sha256 = _receive(offer, incoming, limits)
        if any(promised != sha256 for promised in offer.digests):
            raise DigestMismatch("the body does not have the SHA-256 that its digest field promises")
        image = probe(incoming.view(), size=incoming.size, limits=limits)
        upload_id = compat.uuid7()  # of this moment: who asks for it is told what its host can have said since
        manifest = Manifest(
            id=upload_id,
            asset_id=asset_id or upload_id,
            host_id=staging.host_id,
            path=path.text,
            size=incoming.size,
            sha256=sha256,
            image=image,
            details=offer.details,
            accepted_at=clock.now(),
            fingerprint=fingerprint(path.text, sha256, offer.details),
            keyed=asset_id is not None,
        )
        if manifest.keyed:
            first = _met_before(services, manifest)
            if first is not None:
                return first
        failpoint("accept.before-commit", upload_id)
        incoming.commit(manifest)
    failpoint("accept.after-commit", upload_id)
    if manifest.keyed:
        services.keys.remember(manifest.asset_id, upload_id)
    services.hints.ingest(upload_id)
    return Accepted(manifest, staging.durability, staging.host_id)


def check_announced_size(expected: int | None, limits: Limits) -> None:
    if expected is not None and expected > limits.max_bytes:
        raise _too_large(limits)


def keyed_asset_id(key: str) -> UUID:
    """
    Raises:
        BadRequest: the key is empty, too long, or not printable ASCII.
    """
    if not 1 <= len(key) <= 255 or any(ord(letter) not in PRINTABLE for letter in key):
        raise BadRequest("Idempotency-Key: 1 to 255 printable ASCII characters")
    return uuid5(KEY_NAMESPACE, f"{len(TENANT)}:{TENANT}{len(key)}:{key}")


def fingerprint(path: str, sha256: bytes, details: Details) -> bytes:
    """What an Idempotency-Key stands for: where, which bytes, and what is said of them."""
    said = [path, sha256.hex(), details.alt, sorted(details.labels.items()), sorted(details.tags)]
    return hashlib.sha256(_compact(said).encode()).digest()


def _receive(offer: Offer, incoming: Incoming, limits: Limits) -> bytes:
    """Write the body into staging. What is too large or of no accepted type ends as soon as that shows."""
    head = b""
    with Sha256() as sha256:
        for piece in offer.pieces():
            if len(head) < SNIFFED:
                head += bytes(piece[: SNIFFED - len(head)])
                if len(head) == SNIFFED:
                    _check_type(head)
            if incoming.size + len(piece) > limits.max_bytes:
                raise _too_large(limits)
            sha256.update(piece)
            incoming.write(piece)
        if len(head) < SNIFFED:
            _check_type(head)
        return sha256.digest()


def _check_type(head: bytes) -> None:
    if not head:
        raise BadRequest("the body is empty")
    if sniff(head) is None:
        raise UnsupportedType("the body is not a JPEG, PNG, WebP, GIF, TIFF or AVIF file")


def _too_large(limits: Limits) -> TooLarge:
    return TooLarge(f"an upload may have at most {int(limits.max_bytes)} bytes")


def _met_before(services: Services, manifest: Manifest) -> Accepted | None:
    """The answer to a key that this host, or PostgreSQL without a wait, knows already.

    Raises:
        IdempotencyConflict: it stands for something else.
    """
    staging = services.staging
    for upload_id in services.keys.recall(manifest.asset_id):
        entry = staging.look(upload_id)
        if entry is not None and entry.quarantined:
            continue  # a retry of what failed starts anew
        first = entry.manifest if entry is not None else staging.recently_done(upload_id)
        if first is not None and first.asset_id == manifest.asset_id:
            _check_same(first.fingerprint, manifest)
            return Accepted(first, staging.durability, staging.host_id, replay=True)
    try:
        known = services.metadata.assets.find_soon(manifest.asset_id, DATABASE_PATIENCE_SECONDS)
    except Unavailable:
        return None
    if known is None:
        return None
    _check_same(known.fingerprint, manifest)
    return Accepted(replace(manifest, id=known.upload_id), staging.durability, None, replay=True)


def _check_same(first: bytes, manifest: Manifest) -> None:
    if first != manifest.fingerprint:
        raise IdempotencyConflict("this Idempotency-Key was used for other bytes, another path or other metadata")
