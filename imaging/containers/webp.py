"""WebP: the chunks of the RIFF container, skipped by their lengths."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import BadImage
from core.model import ImageFacts
from core.sections import Limits
from imaging.containers import exif
from imaging.header import Header
from imaging.pixels import Described, Pixels

ANIMATED, ALPHA = 0x02, 0x10
EXIF_MAX = 1 << 20


@dataclass(slots=True)
class _Seen:
    canvas: tuple[int, int] | None = None
    picture: tuple[int, int] | None = None
    frames: int = 0
    animated: bool = False
    has_alpha: bool = False
    orientation: int = 1


def look(header: Header, limits: Limits) -> Described:
    end = 8 + header.number(4, 4, "little")
    if end > header.size:
        raise BadImage("the WebP is cut short")
    seen = _Seen()
    at = 12
    while at + 8 <= end and seen.frames <= limits.max_frames:
        kind, length = header.read(at, 4), header.number(at + 4, 4, "little")
        _chunk(header, kind, at + 8, length, seen)
        if seen.canvas is None and seen.picture is not None:
            break  # the simple layout: one chunk, and nothing after it counts
        at += 8 + length + (length & 1)
    return _facts(seen)


def _facts(seen: _Seen) -> Described:
    size = seen.canvas or seen.picture
    frames = seen.frames if seen.animated else int(seen.picture is not None)
    if size is None or frames == 0:
        raise BadImage("the WebP has no picture")
    if not seen.animated and seen.picture != size:
        raise BadImage("the WebP's picture is not as large as its canvas")
    width, height = reversed(size) if exif.turned(seen.orientation) else size
    facts = ImageFacts("image/webp", width, height, frames, seen.orientation, seen.has_alpha)
    has_room_around = seen.animated  # a frame that does not fill the canvas is given out with alpha
    return Described(facts, Pixels(samples=3 + (seen.has_alpha or has_room_around), frames=frames))


def _chunk(header: Header, kind: bytes, at: int, length: int, seen: _Seen) -> None:
    if kind == b"VP8X":
        flags = header.number(at, 1)
        seen.animated, seen.has_alpha = bool(flags & ANIMATED), bool(flags & ALPHA)
        seen.canvas = (header.number(at + 4, 3, "little") + 1, header.number(at + 7, 3, "little") + 1)
    elif kind == b"ANMF":
        seen.frames += 1
    elif kind == b"VP8 " and seen.picture is None:
        seen.picture = _lossy(header.read(at, 10))
    elif kind == b"VP8L" and seen.picture is None:
        seen.picture, alpha = _lossless(header.read(at, 5))
        seen.has_alpha |= alpha
    elif kind == b"EXIF" and length <= EXIF_MAX:
        seen.orientation = exif.orientation(header.read(at, length))


def _lossy(start: bytes) -> tuple[int, int]:
    if start[3:6] != b"\x9d\x01\x2a":
        raise BadImage("the WebP does not begin with a key frame")
    return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF


def _lossless(start: bytes) -> tuple[tuple[int, int], bool]:
    if start[0] != 0x2F:
        raise BadImage("the WebP has no lossless signature")
    bits = int.from_bytes(start[1:5], "little")
    return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), bool(bits >> 28 & 1)
