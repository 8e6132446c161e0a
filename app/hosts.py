"""Which names a request may call us by, and which pages may write: until there are keys, the only gate.

A browser that visits a stranger's page can be made to reach this service, if only on 127.0.0.1. What it cannot do is
lie in `Host`, `Origin` and `Sec-Fetch-Site`. So a name that is not ours is refused (a stranger's name may be made to
stand for our address), and so is a write that another site's page asks for. Health is for everybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.errors import explain
from core.addresses import parsed
from core.errors import BadRequest, Misdirected, OtherSite

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
EXEMPT = frozenset({"/livez", "/readyz"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Hosts:
    def __init__(self, application: WSGIApplication, hosts: Iterable[str]) -> None:
        self._application = application
        self._named = frozenset(_plain(host) for host in hosts)
        self._all = "*" in self._named

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in EXEMPT:
            try:
                self._check(environ)
            except (BadRequest, Misdirected, OtherSite) as refusal:
                return explain(environ, refusal).send(start_response)
        return self._application(environ, start_response)

    def _check(self, environ: WSGIEnvironment) -> None:
        """
        Raises:
            BadRequest: there is no name, or it is none.
            Misdirected: the name is not one of ours.
            OtherSite: another site's page wants to write.
        """
        named = _names(environ)
        for host in named:
            if not (self._all or host == "localhost" or host in self._named or parsed(host)):
                raise Misdirected(
                    f"this service is not called {host}: ask for it by its address or as localhost, "
                    "or name it in the setting web.hosts"
                )
        if environ["REQUEST_METHOD"] in SAFE:
            return
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not self._is_ours(origin, named):
            raise OtherSite(
                f"a page of another site ({origin[:100]}) may not write here: "
                "send it from a page of this host, or of one that the setting web.hosts names"
            )
        if environ.get("HTTP_SEC_FETCH_SITE", "").strip().lower() == "cross-site":
            raise OtherSite(
                "a page of another site, as the browser says in Sec-Fetch-Site, may not write here: send it from a "
                "page of the same site, or with a program that is no browser; web.hosts does not change this"
            )

    def _is_ours(self, origin: str, named: frozenset[str]) -> bool:
        """`*` names no site: every page would be ours."""
        try:
            host = _plain(urlsplit(origin).hostname or "")
        except ValueError:
            return False
        return host in named or (host in self._named and host != "*")


def _names(environ: WSGIEnvironment) -> frozenset[str]:
    """Return what the request calls us: `Host`, and the target's authority where it has one (RFC 9112 §3.2)."""
    given = environ.get("HTTP_HOST")
    if given is None and environ["SERVER_PROTOCOL"] != "HTTP/1.0":
        raise BadRequest("the field Host is missing, and HTTP/1.1 needs it: the name or the address that was asked for")
    authorities = [] if given is None else [given]
    target: str = environ.get("RAW_URI", "")
    if target[:1] not in ("/", "*"):
        authorities.append(target.partition("://")[2].partition("/")[0].partition("?")[0])
    hosts = [AUTHORITY.fullmatch(authority.strip()) for authority in authorities]
    if not all(hosts):
        raise BadRequest("the field Host is not a name or an address, with or without a port")
    return frozenset(_plain(host[1]) for host in hosts if host)


def _plain(host: str) -> str:
    """Without what makes no difference."""
    return host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")
