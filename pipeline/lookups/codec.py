"""Assets, blobs and replicas as JSON, for the cache. `*_from` raises ValueError, LookupError or TypeError on any other
text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from core.model import Asset, BlobFacts, Details, ImageFacts, Replica

_dump = json.JSONEncoder(separators=(",", ":")).encode


def asset_to(asset: Asset) -> str:
    image = asset.image
    return _dump(
        {
            "id": str(asset.id),
            "path": asset.path,
            "entry": asset.entry,
            "blob": _blob(asset.blob),
            "image": [
                image.media_type,
                image.width,
                image.height,
                image.frames,
                image.orientation,
                image.has_alpha,
            ],
            "alt": asset.details.alt,
            "labels": dict(asset.details.labels),
            "tags": list(asset.details.tags),
            "accepted_at": asset.accepted_at.isoformat(),
            "accepted_by_host_at": asset.accepted_by_host_at.isoformat(),
            "created_at": asset.created_at.isoformat(),
        }
    )


def asset_from(text: str) -> Asset:
    found = json.loads(text)
    image = ImageFacts(*found["image"])
    return Asset(
        id=UUID(found["id"]),
        path=found["path"],
        entry=found["entry"],
        blob=_to_blob(found["blob"]),
        width=image.width,
        height=image.height,
        frames=image.frames,
        details=Details(found["alt"], found["labels"], tuple(found["tags"])),
        accepted_at=datetime.fromisoformat(found["accepted_at"]),
        accepted_by_host_at=datetime.fromisoformat(found["accepted_by_host_at"]),
        created_at=datetime.fromisoformat(found["created_at"]),
        image=image,
    )


def blob_to(blob: BlobFacts) -> str:
    return _dump(_blob(blob))


def blob_from(text: str) -> BlobFacts:
    return _to_blob(json.loads(text))


def replicas_to(replicas: Sequence[Replica]) -> str:
    return _dump([[_blob(one.blob), one.store, one.generation, _time(one.verified_at)] for one in replicas])


def replicas_from(text: str) -> Sequence[Replica]:
    return [
        Replica(_to_blob(blob), store, generation, None if verified_at is None else datetime.fromisoformat(verified_at))
        for blob, store, generation, verified_at in json.loads(text)
    ]


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _blob(blob: BlobFacts) -> list[Any]:
    return [blob.sha256.hex(), blob.size, blob.media_type]


def _to_blob(found: Any) -> BlobFacts:
    sha256, size, media_type = found
    return BlobFacts(bytes.fromhex(sha256), size, media_type)
