"""The line in one process: the real staging, store and database, without Celery and without HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from coordination.turns import PATIENCE
from core.model import Asset, Details, Manifest, Variant
from core.sections import Locks, PathRule, Work
from core.settings import Settings
from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.services import Services, build
from pipeline.uploads import accept, ingest
from pipeline.variants import derive
from storage.object_keys import MARKER

under_every_lock = pytest.mark.parametrize("locks", ["local", "always", "never"])
"""For tests of `line` or `fleet`: with locks that work, that say yes to everybody, and no to everybody. Between them
these tests lead through every use case, and each must come to the same whatever locks say."""


@dataclass(frozen=True)
class Body:
    """An offer of bytes that are at hand."""

    data: bytes
    details: Details = field(default_factory=Details)
    digests: Sequence[bytes] = ()

    @property
    def expected(self) -> int:
        return len(self.data)

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 65536):
            yield self.data[start : start + 65536]


WORK = Work(
    backoff_seconds=0.01,
    backoff_cap_seconds=0.05,
    gc_grace_seconds=0,
    pending_grace_seconds=0,
    lease_seconds=2,
    lease_renewal_seconds=0.5,
    solo_seconds=20,
)


def settings(home: Path, database_url: str, **changes: object) -> Settings:
    given: dict[str, object] = {
        "home": home,
        "database_url": database_url,
        "work": WORK,
        "profiles": {"thumb": {"w": 40}, "square": {"w": 24, "h": 24, "fit": "crop", "format": "webp"}},
        "paths": (PathRule(match="/bare/**"), PathRule(match="/**", eager=("thumb", "square"))),
    }
    return Settings(**{**given, **changes})  # type: ignore[arg-type]  # pydantic checks them


class Line:
    def __init__(self, home: Path, database_url: str, **changes: object) -> None:
        self.settings = settings(home, database_url, **{"locks": Locks(retry_delay_ms=1), **changes})
        self.services: Services = build(self.settings)

    def accept(self, path: str, data: bytes, *, key: str | None = None, details: Details | None = None) -> Manifest:
        body = Body(data, details or Details())
        return accept.accept(self.services, body, AssetPath.from_text(path), key).manifest

    def ingest(self, upload_id: UUID) -> ingest.Outcome:
        return ingest.ingest(self.services, upload_id)

    def bring(self, path: str, data: bytes, **said: object) -> Asset:
        """Accept and ingest; the asset it came to."""
        manifest = self.accept(path, data, **said)  # type: ignore[arg-type]  # as `accept` takes them
        assert self.ingest(manifest.id) is ingest.Outcome.STORED
        asset = self.services.metadata.assets.by_id(manifest.asset_id)
        assert asset is not None
        return asset

    def variants(self, asset: Asset) -> dict[str | None, Variant]:
        return {one.profile: one for one in self.services.metadata.variants.of_asset(asset.id)}

    def derive(self, source: bytes) -> None:
        while derive.derive(self.services, source):
            pass

    def collect(self) -> None:
        rounds = 3  # an asset's variants follow their source, their blobs follow them
        refused = PATIENCE if self.settings.locks.kind == "never" else 0
        for _ in range(rounds * (refused + 1)):
            maintenance.collect_garbage(self.services)

    def put_rules_in_force(self) -> None:
        """Put the rules of these settings in force, as `storage apply-rules` does for what lies there."""
        self.services.metadata.rules.put_in_force(self.services.rules)

    def due(self) -> list[UUID]:
        return self.services.staging.due(100, datetime.now(UTC))

    def objects(self) -> dict[str, bytes]:
        root = self.settings.home / "store"
        found = (path for path in root.rglob("*") if path.is_file() and "tmp" not in path.relative_to(root).parts)
        return {path.name: path.read_bytes() for path in found if path.name != MARKER}

    def holds(self, data: bytes) -> bool:
        name = hashlib.sha256(data).hexdigest()
        return any(key.startswith(name) and found == data for key, found in self.objects().items())

    def close(self) -> None:
        self.services.close()
