"""JPEG: markers up to the first frame header (SOF)."""

from __future__ import annotations

from core.errors import BadImage
from core.model import ImageFacts
from core.sections import Limits
from imaging.containers import exif
from imaging.header import Header
from imaging.pixels import Described, Pixels

APP1, SOS, EOI = 0xE1, 0xDA, 0xD9
STANDALONE = {0x01, *range(0xD0, 0xD8)}
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
FILL = 0xFF


def look(header: Header, limits: Limits) -> Described:
    orientation = 1
    at = 2
    while True:
        marker, at = _marker(header, at)
        if marker in STANDALONE:
            continue
        if marker in {SOS, EOI}:
            raise BadImage("the JPEG has no frame header")
        length = header.number(at, 2)
        if length < 2:
            raise BadImage("the JPEG has a segment of impossible length")
        if marker in FRAME_HEADERS:
            return _facts(header, at, orientation)
        if marker == APP1 and orientation == 1 and length >= 8 and header.read(at + 2, 6) == b"Exif\0\0":
            orientation = exif.orientation(header.read(at + 2, length - 2))
        at += length


def _marker(header: Header, at: int) -> tuple[int, int]:
    """The marker at `at` and where its segment begins. Any number of fill bytes may come before its code."""
    fill, code = header.read(at, 2)
    if fill != FILL:
        raise BadImage("the JPEG has something else where a marker belongs")
    at += 2
    while code == FILL:
        code, at = header.read(at, 1)[0], at + 1
    return code, at


def _facts(header: Header, at: int, orientation: int) -> Described:
    pixels = Pixels(samples=header.number(at + 7, 1), bits=header.number(at + 2, 1))
    height, width = header.number(at + 3, 2), header.number(at + 5, 2)
    if exif.turned(orientation):
        width, height = height, width
    return Described(ImageFacts("image/jpeg", width, height, frames=1, orientation=orientation), pixels)
