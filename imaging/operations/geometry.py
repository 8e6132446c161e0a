"""Sizes in whole pixels."""

from __future__ import annotations

from math import isqrt

Size = tuple[int, int]


def times(size: Size, factor: float) -> Size:
    """Never less than one pixel, whatever the aspect."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def cover(source: Size, box: Size) -> Size:
    """Return the smallest size of the source's aspect that covers the box, or the source's own where that is smaller.

    A part of it is cut first then, and enlarged: the whole, enlarged, could be a thousand times as large as the box."""
    factor = max(box[0] / source[0], box[1] / source[1])
    if factor >= 1:
        return source
    width, height = times(source, factor)
    return max(width, box[0]), max(height, box[1])


def part(picture: Size, box: Size) -> Size:
    """Return how much of the picture is cut for the box: its size, or the most of its aspect in a smaller picture."""
    width, height = times(box, min(1.0, picture[0] / box[0], picture[1] / box[1]))
    return min(width, picture[0]), min(height, picture[1])


def capped(size: Size, *, max_side: int, max_pixels: int) -> Size:
    """`size`, made smaller in its aspect until it keeps both limits."""
    width, height = times(size, min(1.0, max_side / max(size)))
    if width * height <= max_pixels:
        return width, height
    # Rounded down, the shorter side first, so that the product cannot come out above the limit.
    if width <= height:
        width = max(1, isqrt(max_pixels * width // height))
        return width, min(height, max_pixels // width)
    height = max(1, isqrt(max_pixels * height // width))
    return min(width, max_pixels // height), height
