"""The manifest of a staged entry as JSON, there and back. Text an operator can read with `tail -c`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from core.errors import Corrupt
from core.model import Details, ImageFacts, Manifest

compact = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Made once: `json.dumps` with separators makes an encoder for every call. Looking for circles costs a third of it."""


def encode(manifest: Manifest) -> bytes:
    """ASCII only: a lone surrogate in a label must not make an accepted upload unwritable."""
    image = manifest.image
    fields: dict[str, Any] = {
        "id": str(manifest.id),
        "asset_id": str(manifest.asset_id),
        "host_id": str(manifest.host_id),
        "path": manifest.path,
        "size": manifest.size,
        "sha256": manifest.sha256.hex(),
        # Spelt out: `asdict` copies deeply, and took a third of a commit's CPU.
        "image": {
            "media_type": image.media_type,
            "width": image.width,
            "height": image.height,
            "frames": image.frames,
            "orientation": image.orientation,
            "has_alpha": image.has_alpha,
        },
        "alt": manifest.details.alt,
        "labels": dict(manifest.details.labels),
        "tags": list(manifest.details.tags),
        "accepted_at": manifest.accepted_at.isoformat(),
        "fingerprint": manifest.fingerprint.hex(),
        "keyed": manifest.keyed,
    }
    return compact(fields).encode("ascii")


def decode(data: bytes) -> Manifest:
    """
    Raises:
        Corrupt: when this is not a manifest.
    """
    try:
        fields = json.loads(data)
        return Manifest(
            id=UUID(fields["id"]),
            asset_id=UUID(fields["asset_id"]),
            host_id=UUID(fields["host_id"]),
            path=fields["path"],
            size=fields["size"],
            sha256=bytes.fromhex(fields["sha256"]),
            image=ImageFacts(**fields["image"]),
            details=Details(alt=fields["alt"], labels=fields["labels"], tags=tuple(fields["tags"])),
            accepted_at=datetime.fromisoformat(fields["accepted_at"]),
            fingerprint=bytes.fromhex(fields["fingerprint"]),
            keyed=fields["keyed"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"the manifest cannot be read: {type(error).__name__}: {error}") from None
