"""fit: as large as goes inside the box, aspect kept; without `enlarge` never larger than the source."""

from __future__ import annotations

from typing import Any

from imaging.operations.geometry import Size, times

NEEDS_BOX = False
KEEPS_ASPECT = True


def size(source: Size, width: int | None, height: int | None, *, enlarge: bool) -> Size:
    factors = [given / side for given, side in zip((width, height), source, strict=True) if given is not None]
    factor = min(factors, default=1.0)
    return times(source, factor if enlarge else min(1.0, factor))


def scaled(source: Size, size: Size) -> Size:
    return size


def cut(image: Any, size: Size) -> Any:
    return image
