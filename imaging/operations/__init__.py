"""The operations that `fit=` names: one file each, one line in `OPERATIONS`, one test.

An operation says how large its result is, to what size the whole source is scaled for it, and what is cut from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from imaging.operations import crop, fill, fit, stretch
from imaging.operations.geometry import Size


class Operation(Protocol):
    NEEDS_BOX: bool
    """Both `w` and `h` must be given."""
    KEEPS_ASPECT: bool
    """The scaled picture has the source's aspect, so that others can be made from it."""

    def size(self, source: Size, width: int | None, height: int | None, *, enlarge: bool) -> Size:
        """The result's size in pixels."""

    def scaled(self, source: Size, size: Size) -> Size:
        """The size to which the whole source is scaled so that `cut` finds `size` in it."""

    def cut(self, image: Any, size: Size) -> Any:
        """`size` pixels of the scaled picture."""


OPERATIONS: Mapping[str, Operation] = {
    "fit": fit,
    "fill": fill,
    "stretch": stretch,
    "crop": crop,
}
