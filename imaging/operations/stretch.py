"""stretch: exactly as large as the box, the aspect given up, also when that enlarges."""

from __future__ import annotations

from typing import Any

from imaging.operations.geometry import Size

NEEDS_BOX = True
KEEPS_ASPECT = False


def size(source: Size, width: int | None, height: int | None, *, enlarge: bool) -> Size:
    assert width is not None
    assert height is not None
    return width, height


def scaled(source: Size, size: Size) -> Size:
    return size


def cut(image: Any, size: Size) -> Any:
    return image
