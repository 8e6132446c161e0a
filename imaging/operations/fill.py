"""fill: scaled to cover the box and cut around the centre; exactly as large as the box, also when that enlarges."""

from __future__ import annotations

from typing import Any

from imaging.operations.geometry import Size, cover, part

NEEDS_BOX = True
KEEPS_ASPECT = True


def size(source: Size, width: int | None, height: int | None, *, enlarge: bool) -> Size:
    assert width is not None
    assert height is not None
    return width, height


def scaled(source: Size, size: Size) -> Size:
    return cover(source, size)


def cut(image: Any, size: Size) -> Any:
    width, height = part((image.width, image.height), size)
    return image.crop((image.width - width) // 2, (image.height - height) // 2, width, height)
