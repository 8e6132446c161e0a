"""gunicorn's threaded worker, with an end to every wait on a client.

- A head must arrive within seconds, a body must keep moving (`app/body.py`), a client that does not read its answer is
  let go.
- `100 Continue` is sent when the application first reads the body, so an upload refused before is never sent.
- What cannot be read as a request is answered with a problem document (`app/unreadable.py`).
- A thread stays with its connection while requests follow at once and no other connection waits for a thread.
- A connection is closed by the thread that served it: half-close, a little draining so that the client sees the
  answer, close. Upstream does that in the main loop, where one client that stays holds up all others.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import Any

from gunicorn import glogging, util
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.wsgi import FileWrapper, Response
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from app import unreadable
from app.body import Pace, RequestBody
from app.client import ClientSocket
from core import settings
from core.sections import Web

DRAIN_CHUNK = 1 << 16

STAY_SECONDS = 0.05
"""How long a thread waits for the next request of the connection it served: a client that is busy needs less."""


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    sock: ClientSocket

    def __init__(self, cfg: Any, sock: ClientSocket, client: Any, server: Any, web: Web) -> None:
        super().__init__(cfg, sock, client, server)
        self.web = web
        self.pace = Pace(sock, web)

    def init(self) -> None:
        """Called before each request of the connection."""
        super().init()
        self.parser.unreader.sock = self.pace
        self.pace.start_head(begun=self.has_buffered())

    def has_buffered(self) -> bool:
        """Whether something of the next request came together with the last one."""
        return bool(self.parser.unreader.buf.getvalue())

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
                self.sock.limit_receiving(seconds)
                received = len(self.sock.recv(DRAIN_CHUNK))
                if not received:
                    return
                left -= received
        except OSError:
            return


class Answer(Response):  # type: ignore[misc]  # gunicorn has no types
    sock: ClientSocket

    def send_headers(self) -> None:
        """Where the length is known the body follows at once: both leave together."""
        if not self.headers_sent and self.response_length is not None:
            self.sock.hold_next()
        super().send_headers()

    def close(self) -> None:
        super().close()
        self.sock.flush()


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._web = settings.load().web
        self._staying = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))

    def accept(self, listener: Any) -> None:
        """As upstream's, with our connection."""
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        sock = ClientSocket.adopt(accepted, seconds=self._web.stall_seconds)
        self.nr_conns += 1
        self.enqueue_req(Connection(self.cfg, sock, client, listener.getsockname(), self._web))

    def handle(self, conn: Connection) -> Any:
        keep = super().handle(conn)
        while keep is True and self._stays(conn):
            keep = super().handle(conn)
        if keep is not _DEFER and not keep:
            conn.linger()
        return keep

    def _stays(self, conn: Connection) -> bool:
        """Whether the thread serves the connection's next request, too: that comes at once, and no other connection
        waits for a thread. The way over the main loop costs as much as a small request."""
        if not self.alive or self.tpool._work_queue.qsize():  # noqa: SLF001 - there is no public name for it
            return False
        if conn.has_buffered():
            return True
        if not self._staying.acquire(blocking=False):
            return False
        try:
            return conn.sock.readable_within(STAY_SECONDS)
        finally:
            self._staying.release()

    def handle_request(self, req: Request, conn: Connection) -> bool:
        """As upstream's without its hooks and its access log. Returns whether the connection can be kept."""
        # Upstream answers `Expect` before the application has a say; the body does it when it is read.
        expects = req._expected_100_continue  # noqa: SLF001 - there is no public name for it
        req._expected_100_continue = False  # noqa: SLF001
        req.body = RequestBody(req, conn.parser.unreader, conn.pace, expects_continue=expects)
        answer, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=Answer)
        environ["wsgi.multithread"] = True
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            answer.force_close()
        try:
            self._answer(answer, environ)
        except TimeoutError:
            self.log.debug("A client did not read its answer.")
            return False
        except OSError:
            raise
        except Exception:
            if not answer.headers_sent:
                raise
            self.log.exception("an answer broke off")  # a second one on top of it would be read as its body
            return False
        return not answer.should_close()

    def _answer(self, answer: Answer, environ: dict[str, Any]) -> None:
        blocks = self.wsgi(environ, answer.start_response)
        try:
            if isinstance(blocks, FileWrapper):
                answer.write_file(blocks)
            else:
                for block in blocks:
                    answer.write(block)
            answer.close()
        finally:
            if hasattr(blocks, "close"):
                blocks.close()

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """A body that nobody read ended the connection already (`app/access.py`): there is nothing to drain."""
        return keepalive and bool(conn.parser.mesg.body.complete)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        data, request_id = unreadable.answer(exc)
        if unreadable.is_the_clients(exc):
            self.log.warning("a request cannot be read", extra={"request_id": request_id, "reason": str(exc)})
        else:
            self.log.error("unexpected error", exc_info=exc, extra={"request_id": request_id})
        try:
            client.send(data, socket.MSG_DONTWAIT)
        except OSError:
            self.log.debug("A client did not wait for its answer.")


class Logger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn has to say goes the way of all our logs."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
