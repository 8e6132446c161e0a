"""Makes small pictures for tests, with Pillow: an independent hand beside the code under test."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}


def photo(width: int = 320, height: int = 240, mode: str = "RGB") -> Image.Image:
    """A smooth picture that differs in all four corners; alpha, where the mode has it, rises from left to right."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = 127 + 100 * np.sin(x / 17) * np.cos(y / 23)
    pixels = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    if mode in {"RGBA", "LA"}:
        picture.putalpha(Image.fromarray(red.astype(np.uint8)))
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def animated(kind: str, frames: int = 5, width: int = 64, height: int = 48) -> bytes:
    first, *rest = [photo(width, height).rotate(7 * number) for number in range(frames)]
    return encoded(first, kind, save_all=True, append_images=rest, duration=50, loop=0)


def oriented(orientation: int, kind: str = "JPEG", width: int = 320, height: int = 240, **options: Any) -> bytes:
    """With an EXIF orientation, GPS coordinates and a camera's name."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Secretive Camera Works"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    return encoded(photo(width, height), kind, exif=exif, **options)


Field = tuple[int, int, Sequence[int]]
"""Tag, type (1 BYTE, 3 SHORT, 4 LONG, 16 LONG8) and values of a field of a TIFF."""

FIELD_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


def deflated_zeros(size: int) -> bytes:
    """Gigabytes of them at once: a block that refers to none before it is compressed once and repeated."""
    blocks, rest = divmod(size, 1 << 20)
    block = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    repeated = (block.compress(bytes(1 << 20)) + block.flush(zlib.Z_FULL_FLUSH)) * blocks if blocks else b""
    last = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    adler32 = struct.pack(">HH", size % 65_521, 1)
    return b"\x78\xda" + repeated + last.compress(bytes(rest)) + last.flush() + adler32


def tiff(
    width: int, height: int, samples: int = 3, bits: int = 8, *more: Field, big: bool = False, order: str = "<"
) -> bytes:
    """Return a TIFF of zeros in one deflated strip. `more` fields come after ours, also such as contradict them."""
    strip = deflated_zeros(-(-width * samples * bits // 8) * height)
    start = 16 if big else 8
    colours = 2 if samples > 2 else 1
    fields: list[Field] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [8]), (262, 3, [colours]),
        (273, 4, [start]), (277, 3, [samples]), (278, 4, [height]), (279, 4, [len(strip)]),
    ]  # fmt: skip
    at = start + len(strip)
    values, entries = b"", b""
    for tag, kind, numbers in [*fields, *more]:
        packed = struct.pack(f"{order}{len(numbers)}{FIELD_LETTERS[kind]}", *numbers)
        room = 8 if big else 4
        if len(packed) > room:
            offset = at + len(values)
            values, packed = values + packed, struct.pack(f"{order}{'Q' if big else 'I'}", offset)
        entries += struct.pack(f"{order}HH{'Q' if big else 'I'}", tag, kind, len(numbers)) + packed.ljust(room, b"\0")
    count = len(fields) + len(more)
    directory = struct.pack(f"{order}{'Q' if big else 'H'}", count) + entries + bytes(8 if big else 4)
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, at + len(values))
    else:
        head = mark + struct.pack(f"{order}HI", 42, at + len(values))
    return head + strip + values + directory
