"""gunicorn's threaded worker, with an end to every wait on a client.

- A head must arrive within seconds, a body must keep moving (`app/body.py`), a client that does not read its answer is
  let go.
- `100 Continue` is sent when the application first reads the body, so an upload refused before is never sent.
- What cannot be read as a request is answered with a problem document (`app/unreadable.py`).
- A connection is closed by the thread that served it: half-close, a little draining so that the client sees the
  answer, close. Upstream does that in the main loop, where one client that stays holds up all others.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from gunicorn import glogging, util
from gunicorn.http.message import Request
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from app import unreadable
from app.body import Pace, RequestBody
from core import settings
from core.settings import Web

DRAIN_CHUNK = 1 << 16


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, web: Web) -> None:
        super().__init__(cfg, sock, client, server)
        self.web = web
        self.pace = Pace(sock, web)

    def init(self) -> None:
        """Called before each request of the connection."""
        super().init()
        self.parser.unreader.sock = self.pace
        self.pace.start_head()

    def close(self, graceful: bool = False) -> None:
        """Runs in the main loop and never waits: `linger` came before, in the thread."""
        util.close(self.sock)

    def linger(self) -> None:
        """Closing with unread bytes would reset the connection, and the client might never see the answer."""
        ends = time.monotonic() + self.web.drain_seconds
        left = int(self.web.drain_bytes)
        try:
            self.sock.shutdown(socket.SHUT_WR)
            while left > 0 and (seconds := ends - time.monotonic()) > 0:
                self.sock.settimeout(seconds)
                received = len(self.sock.recv(DRAIN_CHUNK))
                if not received:
                    return
                left -= received
        except OSError:
            return


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._web = settings.load().web

    def accept(self, listener: Any) -> None:
        """As upstream's, with our connection."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        sock.setblocking(True)
        self.nr_conns += 1
        self.enqueue_req(Connection(self.cfg, sock, client, listener.getsockname(), self._web))

    def handle(self, conn: Connection) -> Any:
        keep = super().handle(conn)
        if keep is not _DEFER and not keep:
            conn.linger()
        return keep

    def handle_request(self, req: Request, conn: Connection) -> Any:
        # Upstream answers `Expect` before the application has a say; the body does it when it is read.
        expects = req._expected_100_continue  # noqa: SLF001 - there is no public name for it
        req._expected_100_continue = False  # noqa: SLF001
        req.body = RequestBody(req, conn.parser.unreader, conn.pace, expects_continue=expects)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.debug("A client did not read its answer.")
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        data, request_id = unreadable.answer(exc)
        if unreadable.is_the_clients(exc):
            self.log.warning("a request cannot be read", extra={"request_id": request_id, "reason": str(exc)})
        else:
            self.log.error("unexpected error", exc_info=exc, extra={"request_id": request_id})
        try:
            util.write_nonblock(client, data)
        except OSError:
            self.log.debug("A client did not wait for its answer.")


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn has to say goes the way of all our logs."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
