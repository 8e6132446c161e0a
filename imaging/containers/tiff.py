"""TIFF and BigTIFF: the chain of directories (IFDs), one for each page. A chain that comes back to itself ends there
with an error, one that is too long at the limit of frames."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BadImage, TooManyPixels
from core.model import ImageFacts
from core.sections import Limits
from imaging.containers import exif
from imaging.header import Header

WIDTH, LENGTH, ORIENTATION, EXTRA_SAMPLES = 256, 257, 274, 338
SIZES = {1: 1, 3: 2, 4: 4, 16: 8}
"""Bytes of the field types that sizes come in: BYTE, SHORT, LONG, LONG8."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between TIFF and BigTIFF."""

    order: str
    offset: int
    count: int
    entry: int
    first: int


def look(header: Header, limits: Limits) -> ImageFacts:
    shape = _shape(header)
    at = header.number(shape.first, shape.offset, shape.order)
    seen: set[int] = set()
    pages: list[dict[int, int]] = []
    pixels = 0
    while at and len(pages) <= limits.max_frames:
        if at in seen:
            raise BadImage("the TIFF's chain of pages comes back to itself")
        seen.add(at)
        page, at = _directory(header, shape, at)
        pixels += page.get(WIDTH, 0) * page.get(LENGTH, 0)
        pages.append(page)
    if not pages:
        raise BadImage("the TIFF has no page")
    if len(pages) <= limits.max_frames and pixels > limits.max_pixels:
        raise TooManyPixels(f"the pages have {pixels} pixels, at most {limits.max_pixels} are accepted")
    return _facts(pages[0], len(pages))


def _facts(page: dict[int, int], frames: int) -> ImageFacts:
    orientation = exif.valid(page.get(ORIENTATION, 1))
    width, height = page.get(WIDTH, 0), page.get(LENGTH, 0)
    if exif.turned(orientation):
        width, height = height, width
    return ImageFacts("image/tiff", width, height, frames, orientation, EXTRA_SAMPLES in page)


def _shape(header: Header) -> Shape:
    order = "little" if header.read(0, 2) == b"II" else "big"
    if header.number(2, 2, order) == 43:
        return Shape(order, offset=8, count=8, entry=20, first=8)
    return Shape(order, offset=4, count=2, entry=12, first=4)


def _directory(header: Header, shape: Shape, at: int) -> tuple[dict[int, int], int]:
    """The fields of one directory that matter here, and where the next one is."""
    entries = header.number(at, shape.count, shape.order)
    if entries > 0xFFFF:
        raise BadImage("the TIFF has a directory of impossible length")
    at += shape.count
    fields: dict[int, int] = {}
    for _ in range(entries):
        tag = header.number(at, 2, shape.order)
        size = SIZES.get(header.number(at + 2, 2, shape.order))
        if tag in {WIDTH, LENGTH, ORIENTATION, EXTRA_SAMPLES} and size:
            fields[tag] = header.number(at + shape.entry - shape.offset, min(size, shape.offset), shape.order)
        at += shape.entry
    return fields, header.number(at, shape.offset, shape.order)
