"""A proxy before PostgreSQL that swallows one answer and cuts the connection."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit


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
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        transaction = b""
        try:
            while data := client.recv(65536):
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
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
