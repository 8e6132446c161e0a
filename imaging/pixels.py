"""What a header says of the pixels: how many bytes the decoder will give out, before it gives out any.

The figures are those of libvips: palettes come as colours, 1 to 7 bits as 8, and of formats with pages one page.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.model import ImageFacts

MAX_SIDE = 65_535
MAX_SAMPLES = 8
MAX_BITS = 64
MAX_ROW_BYTES = 768 << 10
"""Of one row as it is stored: libvips holds hundreds on their way, some in several forms, however few there are. 65,535
pixels of three times 32 bits, or of four times 16."""
MAX_TILES_BYTES = 512 << 20
"""Of two rows of tiles, which libvips holds at once."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """At most so many; a decoder may find that it needs fewer."""

    samples: int
    """Of one pixel, alpha included."""
    bits: int = 8
    """Of one sample."""
    frames: int = 1
    """That are decoded together."""
    area: int = 0
    """Of one frame where that is more than width times height: whole tiles."""
    row: int = 0
    """How many pixels one row has, as it is stored, in whole tiles. 0: few enough in any file of this format."""
    tile_rows: int = 0


@dataclass(frozen=True, slots=True)
class Described:
    """All that is read from the header of a picture."""

    facts: ImageFacts
    pixels: Pixels

    @property
    def decoded_bytes(self) -> int:
        area = max(self.facts.width * self.facts.height, self.pixels.area)
        return area * self.pixels.frames * self.pixels.samples * sample_bytes(self.pixels.bits)

    @property
    def row_bytes(self) -> int:
        return self.pixels.row * self.pixels.samples * sample_bytes(self.pixels.bits)

    @property
    def tiles_bytes(self) -> int:
        return self.row_bytes * self.pixels.tile_rows * 2


def sample_bytes(bits: int) -> int:
    """1, 2, 4, 8, and so on."""
    return 1 << max(0, (bits - 1).bit_length() - 3)
