"""Requests that the server cannot read or has no thread for, answered as every error of the service: with a problem
document.

They never reach the application. The connection ends after the answer, because nobody knows where the next request
would begin.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gunicorn.http.errors import (
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from app.access import SECURITY
from app.errors import HIDDEN, explain, problem
from app.reply import STATUS_LINES, Reply
from core.errors import MillraceError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ANSWERS: Mapping[type[Exception], tuple[int, str]] = {
    LimitRequestLine: (414, "uri-too-long"),
    LimitRequestHeaders: (431, "header-fields-too-large"),
    ExpectationFailed: (417, "expectation-failed"),
    UnsupportedTransferCoding: (501, "unsupported-transfer-coding"),
}
LONG_URI = "; labels and tags that do not fit go into the part metadata of a form"
MAX_DETAIL = 300


def answer(error: Exception) -> tuple[bytes, str]:
    """The bytes to send, and the request's id for the log. What is no fault of the client's is a 500."""
    request_id = os.urandom(8).hex()
    environ = {"millrace.request_id": request_id}
    reply = explain(environ, error) if isinstance(error, MillraceError) else _unreadable(environ, error)
    body = json.dumps(reply.document).encode()
    fields = [
        ("Connection", "close"),
        ("Content-Type", reply.content_type),
        ("Content-Length", str(len(body))),
        *reply.headers.items(),
        *SECURITY,
        ("X-Request-ID", request_id),
    ]
    head = [f"HTTP/1.1 {STATUS_LINES[reply.status]}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(head).encode("ascii") + body, request_id


def _unreadable(environ: WSGIEnvironment, error: Exception) -> Reply:
    status, code = ANSWERS.get(type(error), (400, "bad-request") if is_the_clients(error) else (500, "internal"))
    detail = str(error)[:MAX_DETAIL] if is_the_clients(error) else HIDDEN
    if status == 414:
        detail += LONG_URI
    return problem(environ, code, detail, status=status)


def is_the_clients(error: Exception) -> bool:
    return isinstance(error, ParseException) and not isinstance(
        error, InvalidResponseHeader | InvalidResponseHeaderName
    )
