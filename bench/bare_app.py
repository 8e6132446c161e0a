"""The least a server must do to keep an upload: body to a file, sync the file, sync its directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

CHUNK = 1 << 20
DIRECTORY = os.environ["BENCH_DIRECTORY"]
_directory = os.open(DIRECTORY, os.O_RDONLY)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":
        _keep(environ["wsgi.input"], int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Length", "2"), ("Content-Type", "text/plain")])
    return [b"ok"]


def _keep(body: Any, size: int) -> None:
    with open(os.path.join(DIRECTORY, uuid4().hex), "xb", buffering=0) as file:
        if hasattr(body, "fill"):  # our worker class: received into one buffer, without a copy
            buffer = memoryview(bytearray(min(size, CHUNK)))
            while count := body.fill(buffer):
                file.write(buffer[:count])
        else:
            while block := body.read(CHUNK):
                file.write(block)
        os.fsync(file.fileno())
    os.fsync(_directory)
