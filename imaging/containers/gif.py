"""GIF: blocks to the end, because only they tell the number of frames. Where the budget of a probe ends first, `frames`
is None and ingest counts."""

from __future__ import annotations

from core.errors import BadImage
from core.model import ImageFacts
from core.sections import Limits
from imaging.header import BudgetSpent, Header
from imaging.pixels import Described, Pixels

EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B
GRAPHIC_CONTROL = 0xF9
TABLE = 0x80


def look(header: Header, limits: Limits) -> Described:
    width, height = header.number(6, 2, "little"), header.number(8, 2, "little")
    at = 13 + _table(header.number(10, 1))
    frames, has_alpha = 0, False
    try:
        while at < header.size and frames <= limits.max_frames:
            kind = header.number(at, 1)
            if kind == EXTENSION:
                has_alpha |= _is_transparent(header, at)
                at = _skip(header, at + 2)
            elif kind == IMAGE:
                frames += 1
                width, height = _grown(header, at, width, height)
                at = _skip(header, at + 11 + _table(header.number(at + 9, 1)))
            elif kind == TRAILER:
                break
            else:
                raise BadImage("the GIF has something else where a block belongs")
    except BudgetSpent:
        return _described(width, height, None, has_alpha)
    if frames == 0:
        raise BadImage("the GIF has no frame")
    return _described(width, height, frames, has_alpha)


def _described(width: int, height: int, frames: int | None, has_alpha: bool) -> Described:
    """Return the facts, and the pixels as the decoder keeps them: with alpha, all frames of an animation at once."""
    return Described(ImageFacts("image/gif", width, height, frames, has_alpha=has_alpha), Pixels(4, frames=frames or 1))


def _table(flags: int) -> int:
    """The size of the colour table that follows, if any."""
    return 3 << ((flags & 7) + 1) if flags & TABLE else 0


def _is_transparent(header: Header, at: int) -> bool:
    return header.number(at + 1, 1) == GRAPHIC_CONTROL and bool(header.number(at + 3, 1) & 1)


def _grown(header: Header, at: int, width: int, height: int) -> tuple[int, int]:
    """Decoders grow a screen that is too small for a frame; the first frame's lies are counted before they do."""
    left, top = header.number(at + 1, 2, "little"), header.number(at + 3, 2, "little")
    wide, high = header.number(at + 5, 2, "little"), header.number(at + 7, 2, "little")
    return max(width, left + wide), max(height, top + high)


def _skip(header: Header, at: int) -> int:
    """Past a chain of sub-blocks: a length, so many bytes, and on, until the length is 0."""
    while True:
        window = header.window(at)
        inside = 0
        while inside < len(window):
            length = window[inside]
            inside += 1 + length
            if length == 0:
                return at + inside
        at += inside
