"""Around every request: its id, its line in the log, the header fields every answer has, and the connection's end when
the body was not read."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from app.body import RequestBody
from core import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("millrace.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

HEALTH = ("/livez", "/readyz")
"""Each balancer asks every few seconds, and a line of each would hide the others."""

SECURITY = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
]
"""Images are meant to be shown by other sites; nothing else here is meant to run anywhere."""


class Access:
    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.monotonic()
        request_id = _request_id(environ)
        environ["millrace.request_id"] = request_id
        body = environ["wsgi.input"]
        answer: dict[str, str] = {}

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            answer["status"] = status[:3]
            if isinstance(body, RequestBody) and not body.complete:
                body.abandon()
            return start_response(status, [*headers, *SECURITY, ("X-Request-ID", request_id)], *rest)

        with logs.bound(request_id=request_id):
            blocks = self._application(environ, start)
            path = environ.get("RAW_URI", "").partition("?")[0]
            logs.event(
                log,
                "request",
                level=logging.DEBUG if path in HEALTH else logging.INFO,
                method=environ["REQUEST_METHOD"],
                path=path,
                status=int(answer.get("status", 0)),
                ms=round((time.monotonic() - began) * 1000, 1),
                client=environ.get("REMOTE_ADDR"),
            )
        return blocks


def _request_id(environ: WSGIEnvironment) -> str:
    """The client's own, if it is a plain word: it ends up in logs and header fields."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    return given if REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
