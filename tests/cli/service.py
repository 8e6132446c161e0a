"""A small HTTP service that answers as a script says, for what the real one does too rarely to wait for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Any]
"""Status, header fields, JSON body."""

KEPT = 1 << 20
"""So much of a body is kept."""


@dataclass
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """`respond` gets every request, after its body was read; None ends the connection without an answer."""

    respond: Callable[[Seen], Answer | None]
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def posts(self) -> list[Seen]:
        return [one for one in self.seen if one.method == "POST"]


@contextmanager
def running(respond: Callable[[Seen], Answer | None]) -> Iterator[Service]:
    service = Service(respond)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            body, left = b"", int(self.headers.get("Content-Length") or 0)
            while left and (block := self.rfile.read(min(left, KEPT))):
                body = body or block
                left -= len(block)
            seen = Seen(self.command, self.path, dict(self.headers), body)
            service.seen.append(seen)
            answer = (200, {}, {}) if self.path == "/livez" else service.respond(seen)
            if answer is None:
                self.close_connection = True
                return
            status, headers, said = answer
            text = b"" if status == 204 else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _handle

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
