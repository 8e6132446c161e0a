"""Where the web server listens: checked before anything starts, and asked whether it answers."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from core.errors import Misconfigured


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Address:
        text = environment.get("PORT") or "8080"
        if not text.isascii() or not text.isdigit() or int(text) > 65535:
            raise Misconfigured(f"PORT={text} is not a port number")
        return cls(environment.get("HOST") or "127.0.0.1", int(text))

    def reserved(self) -> Address:
        """This address with a real port number (0 asks for any free one), seen to be free.

        Raises:
            Misconfigured: it is in use, or not an address of this machine.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
                probe.listen(1)
            except OSError as error:
                reason = error.strerror or str(error)
                raise Misconfigured(
                    f"cannot listen on {self}: {reason}: set PORT or HOST, as in `make up PORT=8081`"
                ) from None
            return Address(self.host, probe.getsockname()[1])

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        return f"http://{Address(self._here, self.port)}"

    @property
    def _here(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound

    def answers(self) -> bool:
        """The process behind it turns; asked where this machine reaches it."""
        connection = http.client.HTTPConnection(self._here, self.port, timeout=1)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
