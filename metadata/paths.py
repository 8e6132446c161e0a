"""Where assets live: what a path may look like, and its form as an ltree.

Guarantees: two texts that differ after NFC normalisation have different ltrees (`decode_label` inverts the encoding);
an ltree holds only `[A-Za-z0-9_.]`, its labels are at most 255 characters (the limit of PostgreSQL 15), and as a whole
it is at most 1,600 bytes, because from about 2,000 bytes on one long key breaks GiST and btree inserts for everybody.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from base64 import b32decode, b32encode
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from core.errors import BadPath

MAX_SEGMENTS = 100
MAX_LABEL = 255
MAX_LTREE = 1600

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN = (string.ascii_letters + string.digits).encode("ascii")
_ESCAPED = tuple(
    chr(byte) if chr(byte) in string.ascii_letters + string.digits else f"_{byte:02X}" for byte in range(256)
)
_BASE32 = "__"
"""Starts a label in base32. An escaped label never starts so: there `_` is followed by two hexadecimal digits."""


@dataclass(frozen=True)
class AssetPath:
    """Made only by `parse` and `from_text`, so that every instance is valid."""

    text: str
    """Decoded and normalised: `/catalog/shöes/red.jpg`."""

    @classmethod
    def parse(cls, raw: str) -> AssetPath:
        """`raw` is what follows `/assets` in the request line, percent-encoded as it came.

        Raises:
            BadPath: with the sentence for the client.
        """
        if not raw.isascii():
            raise BadPath("the path is not percent-encoded")
        if _PERCENT.search(raw):
            raise BadPath("the path has a % that is not followed by two hexadecimal digits")
        if "%2f" in raw.lower():
            raise BadPath("the path has an encoded slash")
        try:
            return cls.from_text(unquote_to_bytes(raw).decode("utf-8"))
        except UnicodeDecodeError:
            raise BadPath("the path is not valid UTF-8") from None

    @classmethod
    def from_text(cls, text: str) -> AssetPath:
        """`text` is the decoded path, `/catalog/shöes/red.jpg`.

        Raises:
            BadPath: with the sentence for the client.
        """
        text = unicodedata.normalize("NFC", text)
        first, *segments = text.split("/")
        if first or not segments:
            raise BadPath("a path starts with /")
        if len(segments) > MAX_SEGMENTS:
            raise BadPath(f"the path has more than {MAX_SEGMENTS} segments")
        for segment in segments:
            _check(segment)
        lengths = [label_length(segment) for segment in segments]
        if max(lengths) > MAX_LABEL:
            raise BadPath(f"a segment of the path is too long: more than {MAX_LABEL} characters when encoded")
        if (length := sum(lengths) + len(lengths) - 1) > MAX_LTREE:
            raise BadPath(f"the path is too long: {length} bytes encoded, and {MAX_LTREE} are allowed")
        return cls(text)

    @property
    def url(self) -> str:
        """Percent-encoded, for links."""
        return quote(self.text, safe="/!$&'()*+,;=:@")

    @property
    def ltree(self) -> str:
        return ".".join(map(encode_label, self.text[1:].split("/")))

    @property
    def hash(self) -> bytes:
        return hash_of(self.text)


def hash_of(text: str) -> bytes:
    """What rows are looked up by: the SHA-256 of a normalised path."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def encode_label(segment: str) -> str:
    """The shorter of the escaped and the base32 form, the escaped one when they are equal."""
    data = segment.encode("utf-8")
    escaped = "".join(map(_ESCAPED.__getitem__, data))
    base32 = _BASE32 + b32encode(data).decode("ascii").rstrip("=")
    return escaped if len(escaped) <= len(base32) else base32


def label_length(segment: str) -> int:
    """Of `encode_label(segment)`, without making it: an upload is told only whether its path fits."""
    data = segment.encode("utf-8")
    escaped = len(data) + 2 * len(data.translate(None, _PLAIN))
    base32 = len(_BASE32) + -(-len(data) * 8 // 5)
    return min(escaped, base32)


def decode_label(label: str) -> str:
    if label.startswith(_BASE32):
        digits = label.removeprefix(_BASE32)
        return b32decode(digits + "=" * (-len(digits) % 8)).decode("utf-8")
    return unquote_to_bytes(label.replace("_", "%")).decode("utf-8")


def _check(segment: str) -> None:
    if not segment:
        raise BadPath("the path has an empty segment: no double slash, and no slash at the end")
    if segment in (".", "..", "-"):
        raise BadPath(f"the path has the segment {segment!r}, which has a meaning of its own")
    if "\\" in segment:
        raise BadPath("the path has a backslash")
    if not segment.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in segment
    ):
        raise BadPath("the path has a control character")
