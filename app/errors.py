"""Every error of the service as a problem document (RFC 9457), also those that Flask raises itself.

`type` is `urn:millrace:problem:<code>`; `code` repeats the stable word. A sentence for a person is in `detail`. What we
did not foresee tells the client nothing but the request's id, which leads to the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from app.reply import Reply
from core.errors import InvalidRange, MillraceError, Unavailable
from pipeline.replicas.archive import Restoring
from pipeline.uploads.status import IngestFailed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

STATUSES: Mapping[str, int] = {
    "rejected": 400,
    "bad-request": 400,
    "bad-path": 400,
    "incomplete-body": 400,
    "stalled-body": 408,
    "too-large": 413,
    "unsupported-type": 415,
    "digest-mismatch": 422,
    "too-many-pixels": 422,
    "too-many-frames": 422,
    "decoded-too-large": 422,
    "bad-image": 422,
    "idempotency-conflict": 422,
    "variant-failed": 422,
    "misdirected": 421,
    "other-site": 403,
    "invalid-range": 416,
    "not-found": 404,
    "already-exists": 409,
    "superseded": 503,
    "store-full": 507,
    "variant-pending": 202,
    "restoring": 202,
}
"""By code, so that a failure row can be answered like the error it came from. `Unavailable` is 503, others are 500."""

TITLES: Mapping[str, str] = {
    "rejected": "The request was refused",
    "stalled-body": "The body came too slowly",
    "variant-pending": "The variant is being made",
    "restoring": "The bytes are being restored from an archive",
    "misdirected": "The service is not called that",
    "other-site": "A page of another site may not write here",
    "store-full": "There is no room in the store",
    "ask-staging-host": "Only the host that accepted the upload knows it so far",
    "internal": "Something went wrong here",
}

MAX_DETAIL = 1000
"""Characters: no answer repeats a large request."""

HIDDEN = "the service met an error of its own; its log has it under this request's id"


def problem(
    environ: WSGIEnvironment,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> Reply:
    """`members` are of this kind of problem (RFC 9457 §3.2)."""
    status = status or STATUSES.get(code, 500)
    document = {
        "type": f"urn:millrace:problem:{code}",
        "title": TITLES.get(code) or code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail if len(detail) <= MAX_DETAIL else detail[:MAX_DETAIL] + "…",
        "instance": environ.get("RAW_URI", "").partition("?")[0],
        "code": code,
        "requestId": environ.get("millrace.request_id"),
        **(members or {}),
    }
    return Reply(status, document, headers or {}, "application/problem+json")


def explain(environ: WSGIEnvironment, error: Exception) -> Reply:
    """The problem document of any error."""
    if isinstance(error, IngestFailed):  # as if it had failed at the door
        return problem(environ, error.reason.kind, error.reason.detail)
    if isinstance(error, MillraceError):
        return _ours(environ, error)
    if isinstance(error, HTTPException):
        return _http(environ, error)
    log.error("unexpected error", exc_info=error)
    return problem(environ, "internal", HIDDEN, status=500)


def register(app: Flask) -> None:
    def handle(error: Exception) -> Response:
        return explain(request.environ, error).to_flask()

    for kind in (MillraceError, HTTPException, Exception):
        app.register_error_handler(kind, handle)


def _ours(environ: WSGIEnvironment, error: MillraceError) -> Reply:
    headers = {}
    members: dict[str, object] = {}
    status = STATUSES.get(error.code)
    if isinstance(error, Restoring):
        headers["Location"] = f"/jobs/{error.job.id}"
        members = {"job": str(error.job.id), "expectedSeconds": error.retry_after}
    if isinstance(error, InvalidRange) and error.size is not None:
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, error.retry_after))
        status = status or 503
    elif status is None:
        log.error("an internal error reached a client", exc_info=error)
        return problem(environ, error.code, HIDDEN, status=500)
    return problem(environ, error.code, error.detail, status=status, headers=headers, members=members)


def _http(environ: WSGIEnvironment, error: HTTPException) -> Reply:
    status = error.code or 500
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    code = HTTPStatus(status).phrase.lower().replace(" ", "-")
    return problem(environ, code, error.description or code, status=status, headers=headers)
