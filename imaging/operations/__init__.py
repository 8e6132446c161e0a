"""The operations that `fit=` names: one file each, one line in `OPERATIONS`, one test.

An operation says how large its result is, to what size the whole source is scaled for it, and what is cut from that.
What is cut is scaled once more where it is not as large as the result. Nothing on the way is larger than the source and
larger than the result.
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
        """Return the size to which the whole source is scaled for `cut`: at most the source's, or the result's."""

    def cut(self, image: Any, size: Size) -> Any:
        """`size` pixels of the scaled picture, or fewer in the same aspect where it has not so many."""


OPERATIONS: Mapping[str, Operation] = {
    "fit": fit,
    "fill": fill,
    "stretch": stretch,
    "crop": crop,
}
