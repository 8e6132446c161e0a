"""`/jobs`: long work on the stores, and how far it is."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from flask import Blueprint, Response, jsonify, request

from app.context import known_parameters, services
from app.fields import json_object
from core.errors import BadRequest
from core.model import Job
from pipeline.jobs import as_json, registry
from pipeline.jobs.runner import Wish

blueprint = Blueprint("jobs", __name__)


@blueprint.get("/jobs")
def page() -> Response:
    known_parameters()
    found = services().metadata.jobs.newest(registry.MAX_PAGE)
    return jsonify({"jobs": [_told(job) for job in found]})


@blueprint.post("/jobs")
def create() -> Response:
    """`{"kind": "migrate", "arguments": {"source": …, "target": …}}`: 202, also when the same work is under way."""
    known_parameters()
    kind, arguments = _asked()
    job = registry.create(services(), kind, arguments)
    response = jsonify(_told(job))
    response.status_code = 202
    response.headers["Location"] = f"/jobs/{job.id}"
    return response


@blueprint.get("/jobs/<uuid:job_id>")
def one(job_id: UUID) -> Response:
    known_parameters()
    return jsonify(_told(registry.find(services(), job_id)))


@blueprint.post("/jobs/<uuid:job_id>/<any(pause, resume, cancel):wish>")
def wish(job_id: UUID, wish: str) -> Response:
    """200 with the job; a wish that whoever works on it has not come to yet is shown."""
    known_parameters()
    return jsonify(_told(registry.wish(services(), job_id, cast(Wish, wish))))


def _asked() -> tuple[str, dict[str, Any]]:
    if not request.is_json:
        raise BadRequest("a job is described as application/json")
    body = json_object("a job", request.get_data())
    if not body.keys() <= {"kind", "arguments"}:
        raise BadRequest('a job is a JSON object with "kind" and "arguments"')
    kind, arguments = body.get("kind"), body.get("arguments", {})
    if not isinstance(kind, str) or not isinstance(arguments, dict):
        raise BadRequest('"kind" is a string, "arguments" an object')
    return kind, as_json.arguments(arguments)


def _told(job: Job) -> dict[str, Any]:
    path = f"/jobs/{job.id}"
    links = {"self": path, **{wish: f"{path}/{wish}" for wish in ("pause", "resume", "cancel")}}
    return {**as_json.told(job), "links": links}
