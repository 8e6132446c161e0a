"""Facts to rows: the other way round than metadata/journal/journal_records.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from metadata.journal.journal_records import Deleted, Recorded
from metadata.paths import AssetPath, hash_of

Row = dict[str, Any]


def of_asset(one: Recorded) -> Row:
    path = AssetPath.from_text(one.asset.path)
    return {
        "id": one.asset.id,
        "path": path.ltree,
        "path_text": path.text,
        "path_hash": path.hash,
        "entry": one.asset.entry,
        "blob": one.asset.blob.sha256,
        "width": one.asset.width,
        "height": one.asset.height,
        "frames": one.asset.frames,
        "orientation": one.asset.image.orientation,
        "has_alpha": one.asset.image.has_alpha,
        "alt": one.asset.details.alt,
        "fingerprint": one.fingerprint,
        "upload_id": one.upload_id,
        "accepted_at": one.asset.accepted_at,
        "accepted_by_host_at": one.asset.accepted_by_host_at,
        "created_at": one.asset.created_at,
    }


def labels(recorded: Iterable[Recorded]) -> Iterable[Row]:
    for one in recorded:
        for key, value in one.asset.details.labels.items():
            yield {"asset_id": one.asset.id, "key": key, "value": value}


def tags(recorded: Iterable[Recorded]) -> Iterable[Row]:
    for one in recorded:
        for value in one.asset.details.tags:
            yield {"asset_id": one.asset.id, "value": value}


def of_upload(one: Recorded) -> Row:
    return {
        "id": one.upload_id,
        "host_id": one.host_id,
        "asset_id": one.asset.id,
        "path_text": one.asset.path,
        "state": "recorded",
        "attempts": 1,
        "accepted_at": one.asset.accepted_at,
        "recorded_at": one.asset.created_at,
    }


def of_tombstone(one: Deleted) -> Row:
    return {
        "asset_id": one.asset_id,
        "path_text": one.path,
        "path_hash": None if one.path is None else hash_of(one.path),
        "entry": one.entry,
        "fingerprint": one.fingerprint,
        "upload_id": one.upload_id,
        "deleted_at": one.deleted_at,
        "blob": one.blob,
    }
