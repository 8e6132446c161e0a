"""gunicorn's worker with threads that no client can hold by doing nothing.

One loop waits for all clients: for a head to be whole, for an answer to be read, for an end to be seen. A thread gets a
connection when there is work for it (`app/turns.py` says whose turn it is) and gives it back when the client has to act
first. What it waits for on a thread is a body alone, at a least speed (`app/pace.py`). A thread stays with its
connection while requests follow at once and no other connection waits.

Of gunicorn (27) this uses what it documents for workers of one's own, `workers.base.Worker`, and its parser and
response. Private is `_expected_100_continue` alone. `ThreadWorker` waits for clients on its threads, so it is not used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.workers.base import Worker as BaseWorker

from app import open_files, unreadable
from app.client import FAILED_WAITING, ClientSocket
from app.connection import Connection, State
from app.ending import Ending
from app.peers import Peers
from app.serving import Next, Serving
from app.threads import Threads
from app.turns import Lane, Place, Turns
from core import settings
from core.errors import Busy
from core.loops import Guard, each

HEAD_SECONDS = 10.0
"""How long a client may take to send the request line and the header fields."""
IDLE_SECONDS = 15.0
"""How long a connection stays open without a request."""
TURN_SECONDS = 10.0
"""How long a request waits for a thread."""
LINGER_SECONDS = 1.0
"""How long a stopping worker takes requests on connections that it has."""
TICK_SECONDS = 0.25
FAILED_SECONDS = 0.05
"""A pause after an error that was not foreseen, which may come again at once."""
ACCEPTS = 8
"""New connections between two looks at the others."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Worker(BaseWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._web = settings.load().web
        self._peers = Peers(self._web.trusted_proxies)
        self._turns: Turns[Connection] = Turns(self.cfg.threads)
        self._outside: dict[Connection, None] = {}
        """Connections without a thread, in the order in which they began to wait."""
        self._count = 0
        self._done: deque[tuple[Connection, Next]] = deque()
        self._listening = False
        self._expired_at = 0.0
        self._ending = Ending(self._web.stop_delay_seconds, self._web.graceful_seconds)

    # -- gunicorn's side

    def init_process(self) -> None:
        open_files.allow(2 * self.cfg.worker_connections + 256)
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, self._take_back)
        super().init_process()

    def handle_exit(self, sig: int, frame: object) -> None:
        """TERM."""
        self.alive = False
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        self._serving = Serving(self.wsgi, self.cfg, may_stay=self._is_alone, is_stopping=lambda: not self.alive)
        self._threads = Threads(self.cfg.threads, self._serve)
        for listener in self.sockets:
            listener.setblocking(False)
        guard = Guard("web", most_rest_seconds=0)
        while os.getppid() == self.ppid and not self._ending.is_over(time.monotonic(), self._count):
            self.notify()
            if not guard.call(self._turn):
                time.sleep(FAILED_SECONDS)

    def _turn(self) -> None:
        if not self.alive and self._ending.closes(time.monotonic()):
            self._close_listeners()
        self._listen(self._count < self.cfg.worker_connections and not self._ending.has_closed)
        each(self._selector.select(TICK_SECONDS), lambda ready: ready[0].data(ready[0].fileobj))
        if (now := time.monotonic()) - self._expired_at >= TICK_SECONDS:
            self._expired_at = now
            self._expire(now)
        self._hand_out()

    # -- its connections

    def _listen(self, wanted: bool) -> None:
        if wanted == self._listening:
            return
        self._listening = wanted
        for listener in self.sockets:
            if wanted:
                self._selector.register(listener, selectors.EVENT_READ, self._accept)
            else:
                self._selector.unregister(listener)

    def _accept(self, listener: Any) -> bool:
        """Returns whether more may wait."""
        for _ in range(ACCEPTS):
            try:
                accepted, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno in FAILED_WAITING:
                    continue
                if error.errno not in _NO_ROOM:
                    raise
                self.log.warning("no room for another connection: %s", error)
                self._evict()
                return False
            sock = ClientSocket.adopt(accepted, seconds=self._web.stall_seconds)
            self._count += 1
            if self._count >= self.cfg.worker_connections:
                self._evict()
            conn = Connection(self.cfg, sock, peer, listener.getsockname(), self._web)
            self._attempt(conn, partial(self._await_request, gather=True))
        return True

    def _await_request(self, conn: Connection, *, gather: bool = False) -> None:
        """Wait for the next request, of which something may be here already."""
        if gather and not conn.gather():
            self._close(conn)
        elif conn.ripe:
            self._queue(conn, conn.place_of(self._peers))
        elif conn.has_begun:
            self._wait(conn, State.HEAD, HEAD_SECONDS, selectors.EVENT_READ)
        else:
            idle = LINGER_SECONDS if self._ending.has_closed else IDLE_SECONDS
            self._wait(conn, State.IDLE, idle, selectors.EVENT_READ)

    def _queue(self, conn: Connection, place: Place) -> None:
        conn.place = place
        conn.state, conn.deadline = State.TURN, time.monotonic() + TURN_SECONDS
        self._outside[conn] = None
        self._turns.join(place, conn)

    def _wait(self, conn: Connection, state: State, seconds: float, event: int) -> None:
        conn.state, conn.deadline = state, time.monotonic() + seconds
        self._selector.register(conn.sock, event, lambda _: self._attempt(conn, self._ready))
        self._outside[conn] = None

    def _attempt(self, conn: Connection, act: Callable[[Connection], None]) -> None:
        """Do what the connection needs; an error that was not foreseen ends this connection, and no other."""
        try:
            act(conn)
        except Exception:
            self.log.exception("a connection ends for an error of ours")
            self._close(conn)

    def _ready(self, conn: Connection) -> None:
        """Go on with a connection whose client did what it was waited for."""
        if conn.state is State.CLOSING:
            if not conn.drain():
                self._close(conn)
            return
        if conn.state is State.HEAD:  # the time is for all of it
            if not conn.gather():
                self._close(conn)
            elif conn.ripe:
                self._fetch(conn)
                self._queue(conn, conn.place_of(self._peers))
            return
        self._fetch(conn)
        if conn.state is State.ROOM:
            conn.pace.resume(time.monotonic())
            self._queue(conn, Place(Lane.SENDING, conn.place.client))
        else:
            self._await_request(conn, gather=True)

    def _fetch(self, conn: Connection) -> None:
        """Take the connection from those that wait."""
        self._outside.pop(conn, None)
        if conn.state is not State.TURN:
            self._selector.unregister(conn.sock)

    def _hand_out(self) -> None:
        while (conn := self._turns.next()) is not None:
            self._outside.pop(conn, None)
            self._threads.give(conn, busy=self._turns.busy)

    def _is_alone(self, conn: Connection) -> bool:
        """Asked on a thread: whether it may go on with this connection's next request, of which it has the head."""
        return self.alive and not self._turns.waiting and (not conn.ripe or conn.place_of(self._peers) == conn.place)

    def _serve(self, conn: Connection) -> None:
        """Serve the connection on a thread, and tell the main loop what comes next."""
        then = Next.END
        try:
            then = self._serving.serve(conn)
        finally:
            self._done.append((conn, then))
            os.eventfd_write(self._wake, 1)

    def _take_back(self, _: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._done:
            conn, then = self._done.popleft()
            self._turns.end(conn.place)
            self._attempt(conn, partial(self._go_on, then))

    def _go_on(self, then: Next, conn: Connection) -> None:
        if then is Next.REQUEST:
            self._await_request(conn)
        elif then is Next.ROOM:
            conn.pace.wait(time.monotonic())
            self._wait(conn, State.ROOM, 0, selectors.EVENT_WRITE)
        elif not conn.closed:
            self._end(conn)

    # -- their ends

    def _end(self, conn: Connection) -> None:
        if conn.begin_closing():
            self._wait(conn, State.CLOSING, self._web.drain_seconds, selectors.EVENT_READ)
        else:
            self._close(conn)

    def _close(self, conn: Connection) -> None:
        if conn.closed:
            return
        if conn in self._outside:
            self._fetch(conn)
        conn.close()
        self._count -= 1
        if conn.sending is not None:  # what it was sent from is let go on a thread: a store may take its time
            self._queue(conn, Place(Lane.SENDING, conn.place.client))

    def _expire(self, now: float) -> None:
        for conn in [conn for conn in self._outside if conn.deadline <= now]:
            if conn.state is State.ROOM:
                if not conn.pace.is_kept(now):
                    self.log.debug("A client did not read its answer.")
                    conn.abort()
                    self._close(conn)
            elif conn.state is not State.TURN:
                self._close(conn)
            elif conn.place.lane is not Lane.SENDING:
                self._turns.leave(conn.place, conn)
                self._fetch(conn)
                self._attempt(conn, self._refuse)

    def _refuse(self, conn: Connection) -> None:
        data, request_id = unreadable.answer(Busy("all threads are taken, or those that you may have", retry_after=1))
        self.log.warning("a request waited too long for a thread", extra={"request_id": request_id})
        with contextlib.suppress(OSError):
            conn.sock.send(data, socket.MSG_DONTWAIT)
        self._end(conn)

    def _evict(self) -> None:
        """Make room: close the connection that has waited longest of those that have asked for nothing."""
        for conn in self._outside:
            if conn.state in (State.IDLE, State.HEAD, State.CLOSING):
                self._close(conn)
                return

    def _close_listeners(self) -> None:
        for listener in self.sockets:  # clients that connected so far are served, as many as there may be
            while self._count < self.cfg.worker_connections and self._accept(listener):
                pass
        self._listen(False)
        for listener in self.sockets:
            listener.close()
        for conn in self._outside:
            if conn.state is State.IDLE:
                conn.deadline = min(conn.deadline, time.monotonic() + LINGER_SECONDS)
