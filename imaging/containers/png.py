"""PNG and APNG: chunks up to the first image data."""

from __future__ import annotations

import zlib

from core.errors import BadImage
from core.model import ImageFacts
from core.sections import Limits
from imaging.containers import exif
from imaging.header import Header
from imaging.pixels import Described, Pixels

FIRST = 8
ALPHA_TYPES = {4, 6}
COLOURS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
"""Samples of each colour type without alpha; those of a palette are its colours."""
EXIF_MAX = 1 << 20


def look(header: Header, limits: Limits) -> Described:
    start = header.read(FIRST, 25)
    if start[:8] != b"\0\0\0\rIHDR" or zlib.crc32(start[4:21]) != int.from_bytes(start[21:25], "big"):
        raise BadImage("the PNG has no valid IHDR chunk")
    width, height = int.from_bytes(start[8:12], "big"), int.from_bytes(start[12:16], "big")
    frames, orientation, has_alpha = 1, 1, start[17] in ALPHA_TYPES
    at = FIRST + 25
    while True:
        length, kind = header.number(at, 4), header.read(at + 4, 4)
        if kind == b"IDAT":
            break
        if kind == b"IEND":
            raise BadImage("the PNG has no image data")
        if kind == b"acTL":
            frames = max(1, header.number(at + 8, 4))
        elif kind == b"tRNS":
            has_alpha = True
        elif kind == b"eXIf" and length <= EXIF_MAX:
            orientation = exif.orientation(header.read(at + 8, length))
        at += 12 + length
    if exif.turned(orientation):
        width, height = height, width
    pixels = Pixels(samples=COLOURS.get(start[17], 0) + has_alpha, bits=start[16])
    return Described(ImageFacts("image/png", width, height, frames, orientation, has_alpha), pixels)
