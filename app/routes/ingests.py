"""`GET /ingests/{id}`: what became of an upload."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, jsonify

from app.context import known_parameters, services
from core.errors import BadRequest
from core.model import FailureReason, Ingest, Variant
from metadata.paths import AssetPath
from pipeline.uploads import status

blueprint = Blueprint("ingests", __name__)


@blueprint.get("/ingests/<uuid:upload_id>")
def get(upload_id: UUID) -> Response:
    at = known_parameters("at").get("at")
    ingest = status.find(services(), upload_id, accepted_at_host=_host(at))
    return jsonify(_told(ingest, at))


def _host(at: str | None) -> UUID | None:
    try:
        return None if at is None else UUID(at)
    except ValueError:
        raise BadRequest("at is the id of a host") from None


def _told(ingest: Ingest, at: str | None) -> dict[str, Any]:
    return {
        "id": str(ingest.id),
        "assetId": None if ingest.asset_id is None else str(ingest.asset_id),
        "state": ingest.state.value,
        "attempts": ingest.attempts,
        "path": ingest.path,
        "entry": ingest.entry,
        "times": {"accepted": _time(ingest.accepted_at), "stored": _time(ingest.stored_at)},
        "failure": failure(ingest.failure),
        "links": {
            "self": f"/ingests/{ingest.id}" + (f"?at={at}" if at else ""),
            "asset": _asset_url(ingest),
        },
        "variants": [_variant(variant) for variant in ingest.variants],
    }


def failure(reason: FailureReason | None) -> dict[str, str] | None:
    return None if reason is None else {"class": reason.kind, "detail": reason.detail}


def _asset_url(ingest: Ingest) -> str | None:
    """Null until there is an entry to point at; also once a purge has taken the path away."""
    if ingest.entry is None or not ingest.path:
        return None
    return f"/assets{AssetPath.from_text(ingest.path).url}/-/entry/{ingest.entry}"


def _variant(variant: Variant) -> dict[str, Any]:
    return {
        "id": str(variant.id),
        "profile": variant.profile,
        "state": variant.state.value,
        "attempts": variant.attempts,
        "failure": failure(variant.failure),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
