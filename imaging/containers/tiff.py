"""TIFF and BigTIFF: the chain of directories (IFDs), one for each page. A chain that comes back to itself ends there
with an error, one that is too long at the limit of frames.

A field may be there twice, or be a list where one number belongs. Readers differ in what they make of that, so the
largest number counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BadImage, TooManyPixels
from core.model import ImageFacts
from core.sections import Limits
from imaging.containers import exif
from imaging.header import Header
from imaging.pixels import Described, Pixels

WIDTH, LENGTH, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 262, 274, 277
TILE_WIDTH, TILE_LENGTH, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 323, 338, 339
WANTED = {
    *(WIDTH, LENGTH, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES),
    *(TILE_WIDTH, TILE_LENGTH, EXTRA_SAMPLES, SAMPLE_FORMAT),
}
FLOAT = 3
PALETTE = 3
AT_LEAST = {PALETTE: 3, 6: 4, 8: 4, 32845: 3}
"""Samples that the decoder gives out for a palette, YCbCr, CIELAB and LogLuv, however many are stored."""
LOGARITHMIC = {32844, 32845}
MOST_VALUES = 16
"""Of a list are looked at."""
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


def look(header: Header, limits: Limits) -> Described:
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


def _facts(page: dict[int, int], frames: int) -> Described:
    orientation = exif.valid(page.get(ORIENTATION, 1))
    width, height = page.get(WIDTH, 0), page.get(LENGTH, 0)
    if exif.turned(orientation):
        width, height = height, width
    return Described(ImageFacts("image/tiff", width, height, frames, orientation, EXTRA_SAMPLES in page), _pixels(page))


def _pixels(page: dict[int, int]) -> Pixels:
    """Return the pixels of the first page, the only one that is decoded."""
    photometric, samples, bits = page.get(PHOTOMETRIC, 0), page.get(SAMPLES, 1), page.get(BITS, 1)
    if photometric in AT_LEAST and samples:
        samples = max(samples, AT_LEAST[photometric] + (photometric == PALETTE and samples > 1))
    if bits and (photometric in LOGARITHMIC or page.get(SAMPLE_FORMAT) == FLOAT):
        bits = max(bits, 32)
    wide, high = _whole_tiles(page, WIDTH, TILE_WIDTH), _whole_tiles(page, LENGTH, TILE_LENGTH)
    return Pixels(samples, bits, area=wide * high, row=wide, tile_rows=page.get(TILE_LENGTH, 0))


def _whole_tiles(page: dict[int, int], side: int, tile: int) -> int:
    each = page.get(tile) or 1
    return -(-page.get(side, 0) // each) * each


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
        if tag in WANTED and size:
            fields[tag] = max(fields.get(tag, 0), _largest(header, shape, at, size))
        at += shape.entry
    return fields, header.number(at, shape.offset, shape.order)


def _largest(header: Header, shape: Shape, entry: int, size: int) -> int:
    """Return the largest number of one field: they lie in its entry or, if they do not fit, where that points."""
    count = header.number(entry + 4, shape.offset, shape.order)
    at = entry + shape.entry - shape.offset
    if count * size > shape.offset:
        at = header.number(at, shape.offset, shape.order)
    each = min(size, shape.offset)
    return max((header.number(at + size * nth, each, shape.order) for nth in range(min(count, MOST_VALUES))), default=0)
