"""Reading and deleting: `/assets/{path}` and what follows `/-/`."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from app import content
from app.context import raw_path, services, waiting_places, waits
from app.selectors import parse
from core.errors import BadRequest, Busy, StoreUnavailable
from core.model import Asset, BlobFacts, Variant
from metadata.paths import AssetPath
from pipeline.assets import deletion, read

blueprint = Blueprint("assets", __name__)


@blueprint.get("/assets/<everything:_rest>")
def get(_rest: str) -> Response:
    address = parse(raw_path())
    query = _query()
    asset = read.find(services(), address.path, address.entry)
    if address.form == "info":
        return _info(asset, query)
    wish = read.understand(services(), asset, query)
    if address.form not in ("content", "download"):
        return _link(asset)
    blob, response = _content(wish)
    if address.form == "download":
        name = asset.path.rsplit("/", 1)[-1]
        response.headers["Content-Disposition"] = content.attachment(name, blob.media_type)
    return response


@blueprint.delete("/assets/<everything:_rest>")
def delete(_rest: str) -> Response:
    address = parse(raw_path())
    purge = _purge()
    if address.entry is None or address.form is not None:
        raise BadRequest("delete names one entry: DELETE /assets/{path}/-/entry/{number}")
    deleted = deletion.delete(services(), address.path, address.entry, purge=purge)
    if deleted is None or not purge:
        return Response(status=204)
    held = [{"id": str(other.id), "path": other.path, "entry": other.entry} for other in deleted.still_held]
    return jsonify({"id": str(deleted.asset_id), "stillHeldBy": held, "more": deleted.more})


def _content(wish: read.Wish) -> tuple[BlobFacts, Response]:
    """A variant that turns out to be lost is rendered again, and waited for as one that is missing."""
    blob = _wait_for(wish)
    try:
        return blob, content.send(services(), request, blob)
    except StoreUnavailable:
        if not read.make_again_for(services(), wish, blob):
            raise
    blob = _wait_for(wish)
    return blob, content.send(services(), request, blob)


def _wait_for(wish: read.Wish) -> BlobFacts:
    """With every waiting place taken, whoever comes next is told at once to come back."""
    try:
        with waiting_places().take():
            return read.blob(services(), waits(), wish, seconds=services().settings.variants.wait_seconds)
    except Busy:
        return read.blob(services(), waits(), wish, seconds=0)


def _query() -> dict[str, str]:
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise BadRequest(f"given more than once: {', '.join(repeated)}")
    return request.args.to_dict()


def _purge() -> bool:
    query = _query()
    purge = query.pop("purge", "false")
    if query or purge not in ("true", "false"):
        raise BadRequest("DELETE knows one parameter: purge=true")
    return purge == "true"


def _entry_url(asset: Asset) -> str:
    return f"/assets{AssetPath.from_text(asset.path).url}/-/entry/{asset.entry}"


def _link(asset: Asset) -> Response:
    query = request.query_string.decode("ascii", "replace")
    url = f"{services().settings.http_url or ''}{_entry_url(asset)}/content{'?' + query if query else ''}"
    return jsonify({"url": url, "alt": asset.details.alt})


def _info(asset: Asset, query: dict[str, str]) -> Response:
    if query:
        raise BadRequest("info tells of the original and all its variants: it takes no parameters")
    variants = services().metadata.variants.of_asset(asset.id)
    return jsonify(
        {
            "id": str(asset.id),
            "path": asset.path,
            "entry": asset.entry,
            "size": asset.blob.size,
            "sha256": asset.blob.sha256.hex(),
            "mediaType": asset.blob.media_type,
            "width": asset.width,
            "height": asset.height,
            "alt": asset.details.alt,
            "labels": dict(asset.details.labels),
            "tags": list(asset.details.tags),
            "acceptedAt": asset.accepted_at.isoformat(),
            "acceptedByHostAt": asset.accepted_by_host_at.isoformat(),
            "createdAt": asset.created_at.isoformat(),
            "variants": [_variant(one) for one in variants],
        }
    )


def _variant(variant: Variant) -> dict[str, Any]:
    recipe = variant.recipe
    return {
        "profile": variant.profile,
        **{name: recipe.get(name) for name in ("w", "h", "fit", "format", "q")},
        "state": variant.state.value,
        "sha256": variant.blob.sha256.hex() if variant.blob else None,
        "size": variant.blob.size if variant.blob else None,
        "attempts": variant.attempts,
        "failure": {"class": variant.failure.kind, "detail": variant.failure.detail} if variant.failure else None,
    }
