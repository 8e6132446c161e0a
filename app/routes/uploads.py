"""`POST /assets/{path}`: the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from flask import Blueprint, Response, request

from app.body import RequestBody
from app.context import Context, context, parameters, raw_path_of
from app.errors import problem
from app.fields import details_of_query, digests, wait_seconds
from app.offers import FormOffer, RawOffer, form_kind
from app.reply import Reply
from core import logs
from core.errors import BadRequest, Busy, StoreFull
from core.model import Ingest
from metadata.paths import AssetPath
from pipeline.uploads import status
from pipeline.uploads.accept import Accepted, accept

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

blueprint = Blueprint("uploads", __name__)


@blueprint.post("/assets/<everything:_rest>")
def post(_rest: str) -> Response:
    """For Flask's table of routes; `app/door.py` usually comes first."""
    return upload(context(), request.environ).to_flask()


def upload(context: Context, environ: WSGIEnvironment) -> Reply:
    path = AssetPath.parse(raw_path_of(environ))
    offer = _offer(environ)
    accepted = accept(context.services, offer, path, environ.get("HTTP_IDEMPOTENCY_KEY"))
    told = _told(accepted, path)
    logs.note(upload_id=told["id"], asset_id=told["assetId"])
    seconds = wait_seconds(environ.get("HTTP_PREFER"))
    try:
        ingest = None if seconds is None else _wait(context, accepted, seconds)
    except StoreFull as full:
        return _kept(environ, told, full)
    if ingest is None:
        return Reply(202, told, {"Location": told["links"]["self"]})
    return _stored(told, path, ingest, {"Preference-Applied": f"wait={seconds}"})


def _offer(environ: WSGIEnvironment) -> RawOffer | FormOffer:
    body = cast("RequestBody", environ["wsgi.input"])
    promised = digests([environ.get("HTTP_CONTENT_DIGEST"), environ.get("HTTP_REPR_DIGEST")])
    said = parameters(environ)
    if not form_kind(environ):
        return RawOffer(body, details_of_query(said), promised)
    if said:
        raise BadRequest(f"unknown query parameter: {said[0][0]} (a form says it in its part metadata)")
    return FormOffer(body, environ["CONTENT_TYPE"], promised)


def _wait(context: Context, accepted: Accepted, seconds: int) -> Ingest | None:
    """With every waiting place taken, the upload is as safe as without waiting: the client asks /ingests."""
    try:
        with context.waiting_places.take():
            return status.wait(context.services, accepted.manifest.id, seconds)
    except Busy:
        return None


def _kept(environ: WSGIEnvironment, told: dict[str, Any], full: StoreFull) -> Reply:
    """507 to a client that asked to wait: not stored, for a reason that is worth knowing, and not lost either."""
    detail = f"the upload is accepted and kept; do not send it again. It is stored once there is room. ({full.detail})"
    headers = {"Location": told["links"]["self"]}  # and no Retry-After, which would ask for the upload again
    return problem(environ, full.code, detail, headers=headers, members={"upload": told})


def _stored(told: dict[str, Any], path: AssetPath, ingest: Ingest, headers: dict[str, str]) -> Reply:
    location = f"/assets{path.url}/-/entry/{ingest.entry}"
    links = told["links"] | {"asset": location}
    stored = told | {"state": ingest.state.value, "entry": ingest.entry, "links": links}
    return Reply(201, stored, headers | {"Location": location})


def _told(accepted: Accepted, path: AssetPath) -> dict[str, Any]:
    """Of an upload that is staged."""
    manifest = accepted.manifest
    upload_id = str(manifest.id)
    return {
        "id": upload_id,
        "assetId": str(manifest.asset_id) if manifest.keyed else upload_id,
        "state": "staged",
        "path": path.text,
        "size": manifest.size,
        "sha256": manifest.sha256.hex(),
        "mediaType": manifest.image.media_type,
        "width": manifest.image.width,
        "height": manifest.image.height,
        "durability": accepted.durability.value,
        "links": {"self": _ingest_url(upload_id, accepted.host_id), "asset": f"/assets{path.url}"},
    }


def _ingest_url(upload_id: str, host_id: UUID | None) -> str:
    """With the host that has the bytes: until it has announced them, no other can tell."""
    url = f"/ingests/{upload_id}"
    return url if host_id is None else f"{url}?at={host_id}"
