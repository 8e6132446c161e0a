"""What a thread does with a connection: requests, one after another, until the client has to act first."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Generator
from enum import Enum
from typing import TYPE_CHECKING, Any

from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.http.message import Request

from app import unreadable
from app.answer import Answer
from app.body import RequestBody
from app.connection import Connection

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

STAY_SECONDS = 0.05
"""How long a thread waits for the next request of the connection it served: a client that is busy needs less."""

_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Next(Enum):
    """What a connection waits for when its thread is done."""

    REQUEST = "the next request"
    ROOM = "its client to read"
    END = "its end"


class Serving:
    def __init__(
        self,
        application: WSGIApplication,
        cfg: Any,
        *,
        may_stay: Callable[[Connection], bool],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._application = application
        self._cfg = cfg
        self._may_stay = may_stay
        self._is_stopping = is_stopping
        self._staying = threading.BoundedSemaphore(max(1, cfg.threads // 8))
        """Fewer than one client may hold: one that is only waited for keeps none of its own requests from a thread."""

    def serve(self, conn: Connection) -> Next:
        if conn.closed:
            return _let_go(conn)
        then = self._request(conn) if conn.sending is None else self._send(conn)
        while then is Next.REQUEST and self._stays(conn):
            then = self._request(conn)
        return then

    def _stays(self, conn: Connection) -> bool:
        """Return whether the thread serves the connection's next request, too: that comes at once, and no other
        connection waits for a thread. The way over the main loop costs as much as a small request."""
        conn.take_rest()
        if not conn.ripe and self._may_stay(conn) and self._staying.acquire(blocking=False):
            try:
                if conn.sock.readable_within(STAY_SECONDS) and not conn.gather():
                    return False  # the main loop sees the end again
            finally:
                self._staying.release()
        return conn.ripe and self._may_stay(conn)

    def _request(self, conn: Connection) -> Next:
        try:
            conn.hand_over()
            request = next(conn.parser)
            self._begin(conn, request)
        except (NoMoreData, StopIteration) as error:
            log.debug("the connection ends: %s", error)
        except OSError as error:
            self._note(error)
        except Exception as error:  # noqa: BLE001 - an error of the parser or of ours: answered as a problem
            self._refuse(conn, error)
        else:
            return self._send(conn)
        return Next.END

    def _begin(self, conn: Connection, request: Request) -> None:
        """Have the application answer; what it answers is sent later."""
        # Upstream answers `Expect` before the application has a say; the body does it when it is read.
        expects = request._expected_100_continue  # noqa: SLF001 - there is no public name for it
        request._expected_100_continue = False  # noqa: SLF001
        body = RequestBody(request, conn.parser.unreader, conn.receiving, expects_continue=expects)
        request.body = body
        answer, environ = wsgi.create(request, conn.sock, conn.peer, conn.server, self._cfg, response_class=Answer)
        environ["wsgi.multithread"] = True
        environ["REMOTE_ADDR"] = conn.client
        environ["millrace.stopping"] = self._is_stopping()
        conn.sock.be_patient()
        conn.pace.start()
        blocks = self._application(environ, answer.start_response)
        if self._is_stopping():  # asked again: a body may have come in meanwhile
            answer.force_close()
        conn.answer, conn.sending = answer, answer.steps(blocks)

    def _send(self, conn: Connection) -> Next:
        """Send until the client has to read first, others have their turn, or the answer ends."""
        answer, sending = conn.answer, conn.sending
        assert answer is not None
        assert sending is not None
        try:
            for _ in sending:
                conn.sock.be_patient(0)
                return Next.ROOM
        except OSError as error:
            conn.sending = None
            self._note(error)
            return Next.END
        except Exception as error:
            conn.sending = None
            if not answer.headers_sent:
                self._refuse(conn, error)
            else:
                log.exception("an answer broke off")  # a second one on top of it would be read as its body
            return Next.END
        conn.sending = None
        complete = answer.req.body.complete
        return Next.REQUEST if complete and not answer.should_close() else Next.END

    def _note(self, error: OSError) -> None:
        """Log an error of the connection. A client that goes away is no event."""
        if error.errno in _GONE or isinstance(error, TimeoutError):
            log.debug("a client is gone: %s", error)
        else:
            log.error("a connection failed", exc_info=error)

    def _refuse(self, conn: Connection, error: Exception) -> None:
        data, request_id = unreadable.answer(error)
        if unreadable.is_the_clients(error):
            log.warning("a request cannot be read", extra={"request_id": request_id, "reason": str(error)})
        else:
            log.error("unexpected error", exc_info=error, extra={"request_id": request_id})
        try:
            conn.sock.send(data, socket.MSG_DONTWAIT)
        except OSError:
            log.debug("A client did not wait for its answer.")


def _let_go(conn: Connection) -> Next:
    """Close what a client that is gone was sent from."""
    sending, conn.sending = conn.sending, None
    if isinstance(sending, Generator):
        sending.close()
    return Next.END
