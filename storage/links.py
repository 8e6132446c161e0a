"""Following a link that a store gave, as a client without credentials would."""

from __future__ import annotations

import http.client
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

SECONDS = 5


def fetch(link: str) -> bytes | None:
    """What the link brings; None: it is refused, or nobody is there."""
    if urlsplit(link).scheme not in ("http", "https"):
        return None
    try:
        with urlopen(link, timeout=SECONDS) as answer:  # noqa: S310 - the scheme was looked at
            body: bytes = answer.read()
    except (URLError, OSError, http.client.HTTPException):
        return None
    return body
