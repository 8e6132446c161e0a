"""What an object key may be; the words are in storage/interface.py."""

from __future__ import annotations

import re

MAX_LENGTH = 512

_SEGMENTS = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


def is_legal(key: str) -> bool:
    return (
        len(key) <= MAX_LENGTH
        and _SEGMENTS.fullmatch(key) is not None
        and not any(segment in (".", "..") for segment in key.split("/"))
    )


def require_legal(key: str) -> None:
    """
    Raises:
        ValueError: a bug of the caller, since Millrace makes the keys.
    """
    if not is_legal(key):
        raise ValueError(f"not an object key: {key[: MAX_LENGTH + 1]!r}")
