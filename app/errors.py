"""Every error of the service as a problem document (RFC 9457), also those that Flask raises itself.

`type` is `urn:millrace:problem:<code>`; `code` repeats the stable word. A sentence for a person is in `detail`. What we
did not foresee tells the client nothing but the request's id, which leads to the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from core.errors import MillraceError, Unavailable
from pipeline.ingests import IngestFailed

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
    "bad-image": 422,
    "idempotency-conflict": 422,
    "variant-failed": 422,
    "invalid-range": 416,
    "not-found": 404,
    "already-exists": 409,
    "superseded": 503,
    "variant-pending": 202,
}
"""By code, so that a failure row can be answered like the error it came from. `Unavailable` is 503, others are 500."""

TITLES: Mapping[str, str] = {
    "rejected": "The request was refused",
    "stalled-body": "The body came too slowly",
    "variant-pending": "The variant is being made",
    "ask-staging-host": "Only the host that accepted the upload knows it so far",
    "internal": "Something went wrong here",
}

HIDDEN = "the service met an error of its own; its log has it under this request's id"


def problem(
    code: str, detail: str, *, status: int | None = None, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    status = status or STATUSES.get(code, 500)
    document = {
        "type": f"urn:millrace:problem:{code}",
        "title": TITLES.get(code) or code.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": request.environ.get("RAW_URI", request.path).partition("?")[0],
        "code": code,
        "requestId": request.environ.get("millrace.request_id"),
        **members,
    }
    return Response(json.dumps(document), status, dict(headers or {}), content_type="application/problem+json")


def register(app: Flask) -> None:
    app.register_error_handler(MillraceError, _ours)
    app.register_error_handler(IngestFailed, _ingest_failed)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: MillraceError) -> Response:
    headers = {}
    status = STATUSES.get(error.code)
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(max(1, error.retry_after))
        status = status or 503
    elif status is None:
        log.error("an internal error reached a client", exc_info=error)
        return problem(error.code, HIDDEN, status=500)
    if status == 416:
        headers["Accept-Ranges"] = "bytes"
    return problem(error.code, error.detail, status=status, headers=headers)


def _ingest_failed(error: IngestFailed) -> Response:
    """As if it had failed at the door: with what it failed of."""
    return problem(error.reason.kind, error.reason.detail)


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    code = HTTPStatus(status).phrase.lower().replace(" ", "-")
    return problem(code, error.description or code, status=status, headers=headers)


def _unexpected(error: Exception) -> Response:
    log.error("unexpected error", exc_info=error)
    return problem("internal", HIDDEN, status=500)
