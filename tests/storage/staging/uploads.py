"""Uploads for the tests of staging: settings without a high-water mark, manifests, staged entries, armed failpoints."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from uuid_utils import uuid7

from core.model import Details, FailureReason, ImageFacts, Manifest
from core.settings import Settings
from storage.staging.claim import Claim
from storage.staging.staging import Staging

BODY = bytes(range(256)) * 40
BAD = FailureReason("bad-image", "it is not one")


def settings(home: Path, **staging: Any) -> Settings:
    roomy = {"min_free_bytes": 0, "min_free_inodes": 0, "high_water_percent": 100}
    return Settings(home=home, staging={**roomy, **staging})


def new_id() -> UUID:
    return UUID(str(uuid7()))


def manifest(upload_id: UUID, body: bytes = BODY, **fields: Any) -> Manifest:
    values: dict[str, Any] = {
        "asset_id": upload_id,
        "host_id": UUID(int=1),
        "path": "/catalog/shoes/red.jpg",
        "size": len(body),
        "sha256": hashlib.sha256(body).digest(),
        "image": ImageFacts("image/jpeg", 640, 480, 1, 6),
        "details": Details("Rote Schuhe", {"season": "été"}, ("red", "shoe")),
        "accepted_at": datetime.now(UTC),
        "fingerprint": bytes(32),
    }
    return Manifest(id=upload_id, **{**values, **fields})


def stage(staging: Staging, body: bytes = BODY, upload_id: UUID | None = None) -> UUID:
    upload_id = upload_id or new_id()
    with staging.begin(upload_id, expected=len(body)) as incoming:
        incoming.write(body)
        incoming.commit(manifest(upload_id, body))
    return upload_id


def in_quarantine(staging: Staging, body: bytes = BODY) -> UUID:
    upload_id = stage(staging, body)
    with open_claim(staging, upload_id) as claim:
        claim.start()
        claim.quarantine(BAD)
    return upload_id


def open_claim(staging: Staging, upload_id: UUID) -> Claim:
    claim = staging.claim(upload_id)
    assert claim is not None
    return claim


def arm(directory: Path, name: str, action: str) -> None:
    directory.mkdir(exist_ok=True)
    draft = directory / f"{name}.draft"
    draft.write_text(action)
    draft.rename(directory / name)


def names(root: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (root / "staging" / folder).iterdir())
