"""A proxy before PostgreSQL that hears what is asked, swallows an answer, and loses connections."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit


class _Messages:
    """Cuts what a client sends into the messages of PostgreSQL's protocol."""

    def __init__(self) -> None:
        self._data = b""
        self._introduced = False

    def feed(self, data: bytes) -> list[tuple[bytes, str]]:
        """Return the type and text of each message that is complete by now."""
        self._data += data
        found = []
        while len(self._data) >= 8:
            start = 1 if self._introduced else 0
            end = start + int.from_bytes(self._data[start : start + 4], "big")
            if len(self._data) < end:
                break
            if self._introduced:
                found.append((self._data[:1], self._data[5:end].rstrip(b"\0").decode(errors="replace")))
            self._data, self._introduced = self._data[end:], True
        return found


class CuttingProxy:
    def __init__(self, url: str, directory: Path) -> None:
        parts = urlsplit(url)
        self._server = Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432"
        self._directory = tempfile.TemporaryDirectory(dir=directory)
        own = Path(self._directory.name)
        self.url = urlunsplit(parts._replace(query=f"host={quote(str(own))}"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(own / ".s.PGSQL.5432"))
        self._listener.listen()
        self._cut_after: bytes | None = None
        self._following = b""
        self._mute: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lost: set[socket.socket] = set()
        self.asked: list[str] = []
        """Each is a round trip: a message that the client waits for the answer of."""
        self.connected = 0

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in [self._listener, *self._open]:
            one.close()
        self._directory.cleanup()

    def cut_after(self, statement: bytes, *, following: bytes = b"") -> None:
        """Once: the server carries out the next such statement, and its answer never arrives. `following`: only on a
        connection that sent this in the same transaction."""
        self._following = following
        self._cut_after = statement

    def lose_connections(self) -> None:
        """Drop all connections as a firewall does that forgot them: the server sees them end, the client only when it
        says something."""
        for one in self._open[1::2]:
            self._lost.add(one)
            one.shutdown(socket.SHUT_RDWR)

    @property
    def has_cut(self) -> bool:
        return self._cut_after is None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            self._open += [client, server]
            self.connected += 1
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        transaction, messages = b"", _Messages()
        try:
            while data := client.recv(65536):
                if server in self._lost:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                self.asked += [text for kind, text in messages.feed(data) if kind == b"Q"]
                transaction = data if b"BEGIN" in data else transaction + data
                if self._cut_after is not None and self._cut_after in data and self._following in transaction:
                    self._cut_after = None
                    self._mute = server
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                if self._mute is server:
                    client.shutdown(socket.SHUT_RDWR)
                    server.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
            if server not in self._lost:
                client.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
