"""`POST /assets/{path}`: the door."""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import Blueprint, Response, request

from app.context import body, parameters, raw_path, services, shares
from app.fields import details_of_query, digests, wait_seconds
from app.offers import FormOffer, RawOffer, form_kind
from core import logs
from core.errors import BadRequest, Busy
from core.model import Ingest
from metadata.paths import AssetPath
from pipeline import accept, ingests
from pipeline.accept import Accepted

log = logging.getLogger(__name__)

blueprint = Blueprint("uploads", __name__)


@blueprint.post("/assets/<everything:_rest>")
def upload(_rest: str) -> Response:
    path = AssetPath.parse(raw_path())
    offer = _offer()
    with shares().receiving():
        accepted = accept.accept(services(), offer, path, request.environ.get("HTTP_IDEMPOTENCY_KEY"))
    logs.note(upload_id=str(accepted.manifest.id), asset_id=str(accepted.manifest.asset_id))
    seconds = wait_seconds(request.environ.get("HTTP_PREFER"))
    if seconds is None:
        return _taken(accepted, path, {})
    ingest = _wait(accepted, seconds)
    applied = {"Preference-Applied": f"wait={seconds}"}
    return _taken(accepted, path, {}) if ingest is None else _stored(accepted, path, ingest, applied)


def _offer() -> RawOffer | FormOffer:
    environ = request.environ
    promised = digests([environ.get("HTTP_CONTENT_DIGEST"), environ.get("HTTP_REPR_DIGEST")])
    said = parameters()
    if not form_kind(environ):
        return RawOffer(body(), details_of_query(said), promised)
    if said:
        raise BadRequest(f"unknown query parameter: {said[0][0]} (a form says it in its part metadata)")
    return FormOffer(body(), environ["CONTENT_TYPE"], promised)


def _wait(accepted: Accepted, seconds: int) -> Ingest | None:
    """With every waiting place taken, the upload is as safe as without waiting: the client asks /ingests."""
    try:
        with shares().waiting():
            return ingests.wait(services(), accepted.manifest.id, seconds)
    except Busy:
        return None


def _taken(accepted: Accepted, path: AssetPath, headers: dict[str, str]) -> Response:
    return _answer(202, _ingest_url(accepted), _told(accepted, path, "staged"), headers)


def _stored(accepted: Accepted, path: AssetPath, ingest: Ingest, headers: dict[str, str]) -> Response:
    location = f"/assets{path.url}/-/entry/{ingest.entry}"
    told = _told(accepted, path, ingest.state.value)
    told["entry"] = ingest.entry
    told["links"]["asset"] = location
    return _answer(201, location, told, headers)


def _told(accepted: Accepted, path: AssetPath, state: str) -> dict[str, Any]:
    manifest = accepted.manifest
    return {
        "id": str(manifest.id),
        "assetId": str(manifest.asset_id),
        "state": state,
        "path": path.text,
        "size": manifest.size,
        "sha256": manifest.sha256.hex(),
        "mediaType": manifest.image.media_type,
        "width": manifest.image.width,
        "height": manifest.image.height,
        "durability": accepted.durability.value,
        "links": {"self": _ingest_url(accepted), "asset": f"/assets{path.url}"},
    }


def _ingest_url(accepted: Accepted) -> str:
    """With the host that has the bytes: until it has announced them, no other can tell."""
    url = f"/ingests/{accepted.manifest.id}"
    return url if accepted.host_id is None else f"{url}?at={accepted.host_id}"


def _answer(status: int, location: str, told: dict[str, Any], headers: dict[str, str]) -> Response:
    headers["Location"] = location
    response = Response(json.dumps(told), status, headers, content_type="application/json")
    response.autocorrect_location_header = False
    return response
