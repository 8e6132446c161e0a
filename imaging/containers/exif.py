"""The orientation in an EXIF block. Everything that is wrong with such a block means orientation 1: cameras and editors
write many broken ones, and the picture is good all the same."""

from __future__ import annotations

from typing import Literal

ORIENTATION = 0x0112
ENTRY = 12


def orientation(block: bytes) -> int:
    """1 to 8, from a block that starts with a TIFF header, with or without `Exif\\0\\0` before it."""
    block = block.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if block[:2] == b"II" else "big"
    directory = int.from_bytes(block[4:8], order)
    entries = int.from_bytes(block[directory : directory + 2], order)
    first = directory + 2
    for at in range(first, min(first + entries * ENTRY, len(block) - ENTRY + 1), ENTRY):
        if int.from_bytes(block[at : at + 2], order) == ORIENTATION:
            return valid(int.from_bytes(block[at + 8 : at + 10], order))
    return 1


def valid(value: int) -> int:
    return value if 1 <= value <= 8 else 1


def turned(value: int) -> bool:
    """Width and height change places."""
    return value >= 5
