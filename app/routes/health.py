"""`/livez`, `/readyz` and the page at `/`. None of them ever waits for a dependency longer than a moment."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, jsonify, request

from app.context import context, known_parameters
from app.health import Finding
from core.errors import BadRequest, NotFound

blueprint = Blueprint("health", __name__)

PAGES = Path(__file__).parent.parent / "pages"
INDEX = (PAGES / "index.html").read_bytes()
README = PAGES.parent.parent / "README.md"
STYLE = (PAGES / "style.css").read_bytes()


@blueprint.get("/livez")
def alive() -> Response:
    return jsonify({"alive": True})


@blueprint.get("/readyz")
def ready() -> Response:
    wanted = known_parameters("for").get("for")
    found, capabilities = context().health.look()
    if request.environ.get("millrace.stopping"):
        found = {**found, "web": Finding(False, "this web server ends: ask another host")}
        capabilities = dict.fromkeys(capabilities, False)
    if wanted is not None and wanted not in capabilities:
        raise BadRequest(f"for is one of {', '.join(capabilities)}")
    good = all(capabilities.values()) if wanted is None else capabilities[wanted]
    response = jsonify(
        {
            "ready": good,
            "capabilities": dict(capabilities),
            "dependencies": {name: {"ok": one.ok, "detail": one.detail} for name, one in found.items()},
        }
    )
    response.status_code = 200 if good else 503
    if not good:
        response.headers["Retry-After"] = "1"
    return response


@blueprint.get("/")
def index() -> Response:
    return Response(INDEX, mimetype="text/html")


@blueprint.get("/documentation")
def documentation() -> Response:
    """The README of what is installed here."""
    if not README.is_file():
        raise NotFound("this installation came without its README")
    return Response(README.read_bytes(), content_type="text/plain; charset=utf-8")


@blueprint.get("/style.css")
def style() -> Response:
    return Response(STYLE, mimetype="text/css")
