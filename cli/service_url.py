"""Which Millrace a command talks to."""

from __future__ import annotations

from urllib.parse import urlsplit

from core import settings
from core.errors import Misconfigured


def service_url(given: str | None) -> str:
    """Return the URL of the service: `--url`, else the one that settings or a running `millrace up` name.

    Raises:
        Misconfigured: neither says it, or it is no http URL.
    """
    url = given or settings.load().http_url
    if url is None:
        raise Misconfigured("no --url, and no service runs in this MILLRACE_HOME: start `millrace up`, or say where")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured(f"--url: {url!r} is no http:// or https:// URL")
    return url
