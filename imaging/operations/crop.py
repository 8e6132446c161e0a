"""crop: scaled to cover the box and cut where the eye goes first (libvips' attention: skin, saturation, edges).

Without `enlarge` the source is never scaled up: a box it cannot cover shrinks, in its own aspect, until it can.
"""

from __future__ import annotations

from typing import Any

from imaging.operations.geometry import Size, cover, part, times

NEEDS_BOX = True
KEEPS_ASPECT = True


def size(source: Size, width: int | None, height: int | None, *, enlarge: bool) -> Size:
    assert width is not None
    assert height is not None
    factor = min(1.0, source[0] / width, source[1] / height)
    return (width, height) if enlarge else times((width, height), factor)


def scaled(source: Size, size: Size) -> Size:
    return cover(source, size)


def cut(image: Any, size: Size) -> Any:
    return image.smartcrop(*part((image.width, image.height), size), interesting="attention")
