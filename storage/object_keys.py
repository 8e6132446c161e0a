"""What an object key may be (the words are in storage/interface.py), and which keys are Millrace's own.

A bucket or a directory may be shared with other programs. So whatever removes what it found by listing asks `is_ours`
first.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LENGTH: Final = 512
MAX_GENERATION: Final = 2**63 - 1

MARKER: Final = "millrace-installation"
"""Says whose the store is."""
EXAMINED: Final = "millrace-doctor/"
MEASURED: Final = "millrace-bench/"
"""Below these lies what is written only to be looked at and removed."""
CATALOGUE: Final = "catalog/"

_LEGAL = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_BLOB = re.compile(r"([0-9a-f]{64})\.(0|[1-9][0-9]{0,18})")
_SEGMENT = re.compile(CATALOGUE + r"([0-9]{12})-([0-9]{12})\.ndjson")


def is_legal(key: str) -> bool:
    return (
        len(key) <= MAX_LENGTH
        and _LEGAL.fullmatch(key) is not None
        and not any(segment in (".", "..") for segment in key.split("/"))
    )


def require_legal(key: str) -> None:
    """
    Raises:
        ValueError: a bug of the caller, since Millrace makes the keys.
    """
    if not is_legal(key):
        raise ValueError(f"not an object key: {key[: MAX_LENGTH + 1]!r}")


def named(key: str) -> tuple[bytes, int] | None:
    """Read the hash and the generation that the key of a blob says."""
    match = _BLOB.fullmatch(key)
    if match is None or int(match[2]) > MAX_GENERATION:
        return None
    return bytes.fromhex(match[1]), int(match[2])


def segment(key: str) -> tuple[int, int] | None:
    """Read the first and the last number that the key of a segment of the catalogue says."""
    match = _SEGMENT.fullmatch(key)
    return None if match is None else (int(match[1]), int(match[2]))


def is_ours(key: str) -> bool:
    """Tell whether Millrace makes such keys."""
    return key == MARKER or key.startswith((EXAMINED, MEASURED)) or (named(key) or segment(key)) is not None
