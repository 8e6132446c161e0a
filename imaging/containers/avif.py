"""AVIF: the boxes that describe the primary item (ISO 23008-12). Media data is skipped by its length.

Width and height are as displayed: `clap`, `irot` and `imir` are applied by every decoder, so `orientation` is 1. An
EXIF block inside an AVIF does not turn the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.errors import BadImage
from core.model import ImageFacts
from core.sections import Limits
from imaging.header import Header
from imaging.pixels import Described, Pixels

PICTURES = {b"av01", b"grid", b"iovl", b"iden"}
HIGH_BIT_DEPTH, TWELVE_BIT = 0x40, 0x20
"""In the third byte of the `av1C` property (AV1 in ISOBMFF, 2.3.3)."""
TO_SAMPLE_SIZES = (b"trak", b"mdia", b"minf", b"stbl", b"stsz")


@dataclass(frozen=True, slots=True)
class Box:
    kind: bytes
    at: int
    """Where its content begins."""
    end: int


def look(header: Header, limits: Limits) -> Described:
    frames, found = 1, None
    for box in boxes(header, 0, header.size):
        if box.kind == b"meta" and found is None:
            found = _picture(header, _children(header, Box(b"meta", box.at + 4, box.end)))
            if not _is_sequence(header):
                break
        elif box.kind == b"moov":
            frames = _samples(header, box)
            break
    if found is None:
        raise BadImage("the AVIF does not describe a picture")
    width, height, has_alpha, bits = found
    pixels = Pixels(samples=3 + has_alpha, bits=bits)
    return Described(ImageFacts("image/avif", width, height, frames, has_alpha=has_alpha), pixels)


def boxes(header: Header, at: int, end: int) -> Iterator[Box]:
    while at + 8 <= end:
        length, kind = header.number(at, 4), header.read(at + 4, 4)
        content = at + 8
        if length == 1:
            length, content = header.number(at + 8, 8), at + 16
        after = end if length == 0 else at + length
        if after < content or after > end:
            raise BadImage("the AVIF has a box of impossible length")
        yield Box(kind, content, after)
        at = after


def _children(header: Header, box: Box) -> dict[bytes, Box]:
    return {child.kind: child for child in boxes(header, box.at, box.end)}


def _is_sequence(header: Header) -> bool:
    brands = header.read(8, min(header.number(0, 4), 256) - 8)
    return b"avis" in (brands[at : at + 4] for at in range(0, len(brands), 4))


def _picture(header: Header, meta: dict[bytes, Box]) -> tuple[int, int, bool, int]:
    """Width, height, whether there is alpha, and bits of a sample, of the primary item."""
    try:
        primary_box, info, properties = meta[b"pitm"], meta[b"iinf"], _children(header, meta[b"iprp"])
        store, associations = properties[b"ipco"], properties[b"ipma"]
    except KeyError as error:
        raise BadImage(f"the AVIF has no {error.args[0].decode('ascii', 'replace')} box") from None
    wide = 4 if header.number(primary_box.at, 1) else 2
    primary = header.number(primary_box.at + 4, wide)
    if _item_type(header, info, primary) not in PICTURES:
        raise BadImage("the AVIF's primary item is not coded as AV1")
    width = height = 0
    stored = list(boxes(header, store.at, store.end))
    for index in _properties_of(header, associations, primary):
        if 1 <= index <= len(stored):
            width, height = _transformed(header, stored[index - 1], width, height)
    return width, height, _has_alpha(header, meta.get(b"iref"), primary), _bits(header, stored)


def _bits(header: Header, properties: Iterable[Box]) -> int:
    """Return the most bits that any coded item has: the tiles of a grid tell them, the grid itself does not."""
    flags = [header.number(box.at + 2, 1) for box in properties if box.kind == b"av1C"]
    depths = [12 if flag & TWELVE_BIT else 10 for flag in flags if flag & HIGH_BIT_DEPTH]
    return max(depths, default=8 if flags else 12)


def _transformed(header: Header, box: Box, width: int, height: int) -> tuple[int, int]:
    if box.kind == b"ispe":
        return header.number(box.at + 4, 4), header.number(box.at + 8, 4)
    if box.kind == b"irot" and header.number(box.at, 1) & 1:
        return height, width
    if box.kind == b"clap":
        wide, per_wide, high, per_high = (header.number(box.at + 4 * index, 4) for index in range(4))
        if per_wide and per_high:
            return round(wide / per_wide), round(high / per_high)
    return width, height


def _item_type(header: Header, info: Box, item: int) -> bytes:
    version = header.number(info.at, 1)
    first = info.at + (8 if version else 6)
    for entry in boxes(header, first, info.end):
        version = header.number(entry.at, 1)
        wide = 4 if version >= 3 else 2
        if entry.kind == b"infe" and version >= 2 and header.number(entry.at + 4, wide) == item:
            return header.read(entry.at + 4 + wide + 2, 4)
    return b""


def _properties_of(header: Header, box: Box, item: int) -> list[int]:
    version, wide_index = header.number(box.at, 1), header.number(box.at + 3, 1) & 1
    id_size, index_size = (4 if version else 2), (2 if wide_index else 1)
    at = box.at + 8
    for _ in range(header.number(box.at + 4, 4)):
        owner, count = header.number(at, id_size), header.number(at + id_size, 1)
        at += id_size + 1
        if owner == item:
            mask = (1 << (8 * index_size - 1)) - 1  # the highest bit says "essential"
            return [header.number(at + index_size * nth, index_size) & mask for nth in range(count)]
        at += count * index_size
        if at > box.end:
            break
    return []


def _has_alpha(header: Header, references: Box | None, primary: int) -> bool:
    """An auxiliary item (`auxl`) that points at the primary one. AVIF knows alpha and depth; depth is rare enough."""
    if references is None:
        return False
    wide = 4 if header.number(references.at, 1) else 2
    for box in boxes(header, references.at + 4, references.end):
        if box.kind == b"auxl":
            targets = header.number(box.at + wide, 2)
            first = box.at + wide + 2
            if primary in (header.number(first + wide * nth, wide) for nth in range(targets)):
                return True
    return False


def _samples(header: Header, movie: Box) -> int:
    """The number of pictures in the first track."""
    box = movie
    for kind in TO_SAMPLE_SIZES:
        found = next((child for child in boxes(header, box.at, box.end) if child.kind == kind), None)
        if found is None:
            raise BadImage("the AVIF sequence does not say how long it is")
        box = found
    return max(1, header.number(box.at + 8, 4))
