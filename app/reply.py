"""An answer before it belongs to a framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_encode = json.JSONEncoder(check_circular=False).encode

STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def send(self, start_response: StartResponse) -> list[bytes]:
        """As WSGI."""
        body = _encode(self.document).encode()
        length = ("Content-Length", str(len(body)))
        headers = [("Content-Type", self.content_type), length, *self.headers.items()]
        start_response(STATUS_LINES[self.status], headers)
        return [body]

    def to_flask(self) -> Response:
        body = _encode(self.document)
        return Response(body, self.status, dict(self.headers), content_type=self.content_type)
