"""`/failures`: what could not be done, and what shall become of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Blueprint, Response, jsonify

from app.context import known_parameters, services
from app.routes.ingests import failure as reason
from core.errors import BadRequest
from core.model import Failure
from pipeline import failures

blueprint = Blueprint("failures", __name__)

PAGE = 50


@blueprint.get("/failures")
def page() -> Response:
    query = known_parameters("after", "limit")
    limit = _limit(query.get("limit"))
    found = failures.page(services(), after=query.get("after"), limit=limit)
    following = None
    if found.after is not None:
        following = "/failures?" + urlencode({"after": found.after, "limit": limit})
    return jsonify({"failures": [_told(one) for one in found.items], "next": following})


@blueprint.get("/failures/<uuid:failure_id>")
def one(failure_id: UUID) -> Response:
    known_parameters()
    return jsonify(_told(failures.find(services(), failure_id)))


@blueprint.post("/failures/<uuid:failure_id>/retry")
def retry(failure_id: UUID) -> Response:
    return _wished(failure_id, "retry")


@blueprint.delete("/failures/<uuid:failure_id>")
def discard(failure_id: UUID) -> Response:
    return _wished(failure_id, "discard")


def _wished(failure_id: UUID, what: failures.Wish) -> Response:
    """202 with the wish on its row until the host that has the bytes carries it out; 204 when it is done already."""
    known_parameters()
    failure = failures.wish(services(), failure_id, what)
    if failure is None:
        return Response(status=204)
    response = jsonify(_told(failure))
    response.status_code = 202
    return response


def _told(failure: Failure) -> dict[str, Any]:
    return {
        "id": str(failure.id),
        "subject": failure.subject,
        "host": None if failure.host_id is None else str(failure.host_id),
        "path": failure.path,
        "failure": reason(failure.reason),
        "failedAt": failure.failed_at.isoformat(),
        "wish": failure.wish,
        "links": {"self": f"/failures/{failure.id}", "retry": f"/failures/{failure.id}/retry"},
    }


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= failures.MAX_PAGE):
        raise BadRequest(f"limit is a number from 1 to {failures.MAX_PAGE}")
    return int(text)
