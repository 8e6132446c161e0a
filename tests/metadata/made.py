"""Values as an ingest would hand them in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from core.model import (
    Attempts,
    BlobFacts,
    Details,
    FailureReason,
    ImageFacts,
    Manifest,
    Recorded,
    Replica,
    StagedEntry,
    StoreState,
    WantedVariant,
)
from metadata.assets.assets import Deleted
from metadata.blobs.collection import Held, Keeping
from metadata.blobs.references import Reference
from metadata.facade import Metadata
from metadata.paths import AssetPath
from metadata.rules import Rules
from metadata.variants.variants import Stored

HOST = UUID(int=1)
HOUR = timedelta(hours=1)
NO_TIME = timedelta(0)
LEASE = timedelta(seconds=30)


def manifest(path: str = "/a.png", body: bytes | None = None, **changes: Any) -> Manifest:
    body = uuid4().bytes if body is None else body
    made = Manifest(
        id=uuid4(),
        asset_id=uuid4(),
        host_id=HOST,
        path=path,
        size=len(body),
        sha256=hashlib.sha256(body).digest(),
        image=ImageFacts("image/png", 640, 480, 1),
        details=Details(),
        accepted_at=datetime.now(UTC),
        fingerprint=hashlib.sha256(path.encode() + body).digest(),
    )
    return replace(made, **changes)


def facts(of: Manifest) -> BlobFacts:
    return BlobFacts(of.sha256, of.size, of.image.media_type)


def output(name: str) -> BlobFacts:
    return BlobFacts(hashlib.sha256(name.encode()).digest(), len(name), "image/webp")


def want(name: str, *, profile: str | None = None, eager: bool = True) -> WantedVariant:
    return WantedVariant(hashlib.sha256(name.encode()).digest(), {"name": name}, profile, eager)


def staged(of: Manifest, reason: FailureReason | None = None) -> StagedEntry:
    return StagedEntry(of, Attempts(total=1, failure=reason), quarantined=reason is not None)


def everything(
    blob: BlobFacts, held: Sequence[Held], references: Iterator[Reference], said: Mapping[str, StoreState]
) -> frozenset[str]:
    """Every replica has a reason to stay."""
    return frozenset(one.store for one in held)


RULES = Rules(b"", {})
KEEPING = Keeping(RULES, everything)


def path(text: str) -> AssetPath:
    return AssetPath.from_text(text)


@dataclass(frozen=True)
class Ingester:
    """Goes the way of an ingest, without a store."""

    metadata: Metadata

    def reserve(self, blob: BlobFacts) -> Replica:
        [reservation] = self.metadata.blobs.reserve([(blob, "main")], HOUR)
        return reservation.replica

    def ingest(self, made: Manifest, wants: Sequence[WantedVariant] = (), lease: timedelta | None = None) -> Recorded:
        return self.metadata.assets.record(made, [self.reserve(facts(made))], wants, lease=lease)

    def finish(self, recorded: Recorded) -> int:
        done = [Stored(one, [self.reserve(output(str(one.id)))]) for one in recorded.leased]
        return self.metadata.variants.finish(done)

    def delete(self, at: str, entry: int = 0, *, purge: bool = False, grace: timedelta = HOUR) -> Deleted | None:
        return self.metadata.assets.delete(path(at), entry, grace=grace, purge=purge)

    def garbage(self) -> list[str]:
        return [one.key for one in self.metadata.blobs.garbage(100)]
