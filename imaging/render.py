"""All wanted variants of one picture from one decode.

The decoded picture is as small as the largest variant allows. The fixed rule of sharing: a variant is scaled from a
picture of its own size, from one at least twice its size, or from the source itself; never from anything in between.
The decoded picture serves from twice the size on, those scaled from it from four times on.
One bad variant does not fail the others. Memory: the decoded picture, at most twice the largest variant on each side
and never more than the source, and the scaled ones in turn. An animation is decoded whole for each variant that keeps
its frames; `Recipe` bounds those. What a variant enlarges is cut from the source before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from core.errors import BadImage, Rejected
from imaging.decode import Original, scaled
from imaging.encode import encode
from imaging.engine import reason, vips
from imaging.operations import OPERATIONS
from imaging.operations.geometry import Size, cover, times
from imaging.recipe import Recipe

TWICE = 2


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished file. `index` is the recipe's place in what was asked."""

    index: int
    path: Path
    size: int
    sha256: bytes
    media_type: str
    width: int
    height: int


Scope = Literal["variant", "source", "frames"]


class Undecodable(BadImage):
    """Not this variant is bad, but all that show all frames."""


@dataclass(frozen=True, slots=True)
class RenderFailed:
    index: int
    error: Rejected
    scope: Scope = "variant"
    """`source`: the picture cannot be decoded, so no variant can be made; `frames`: none that shows all frames."""


def render(fd: int, size: int, recipes: Sequence[Recipe], directory: Path) -> Iterator[Rendered | RenderFailed]:
    """One result for each recipe, the largest first; the files lie in `directory`. The picture is `fd`'s first `size`
    bytes, which stay as they are while this runs; the descriptor's position does not matter.

    Raises:
        Unavailable: the results cannot be written now.
        Corrupt: the file is shorter than `size`.
        StoreUnavailable: its disk cannot read it.
    """
    try:
        original = Original.open(fd, size)
    except Rejected as error:
        yield from (RenderFailed(index, error, "source") for index in range(len(recipes)))
        return
    stills = [(index, recipe) for index, recipe in enumerate(recipes) if not recipe.animated]
    yield from _stills(original, sorted(stills, key=lambda one: one[1].w * one[1].h, reverse=True), directory)
    for index, recipe in enumerate(recipes):
        if recipe.animated:
            yield _attempt(index, recipe, directory, partial(_animation, original, recipe))


def _stills(
    original: Original, recipes: Sequence[tuple[int, Recipe]], directory: Path
) -> Iterator[Rendered | RenderFailed]:
    if not recipes:
        return
    sizes = [OPERATIONS[recipe.fit].scaled(original.size, recipe.size) for _, recipe in recipes]
    keeps = [OPERATIONS[recipe.fit].KEEPS_ASPECT for _, recipe in recipes]
    kept, stretched = (
        [size for size, keep in zip(sizes, keeps, strict=True) if keep is same] for same in (True, False)
    )
    try:
        shared = _Shared(original.still(master(original.size, kept, stretched)))
    except Rejected as error:
        yield from (RenderFailed(index, error, "source") for index, _ in recipes)
        return
    for (index, recipe), wanted in zip(recipes, sizes, strict=True):
        yield _attempt(index, recipe, directory, partial(_still, shared, recipe, wanted))


def _attempt(index: int, recipe: Recipe, directory: Path, make: Callable[[], Any]) -> Rendered | RenderFailed:
    path = directory / f"{index}.{recipe.extension}"
    try:
        picture = make()
    except Undecodable as error:
        return RenderFailed(index, error, "frames")
    except Rejected as error:
        return RenderFailed(index, error)
    try:
        sink = encode(picture, path, recipe.format, recipe.q)
    except Rejected as error:
        return RenderFailed(index, error)
    return Rendered(index, path, sink.size, sink.sha256, recipe.media_type, recipe.w, recipe.h)


def _still(shared: _Shared, recipe: Recipe, wanted: Size) -> Any:
    pyvips = vips()
    try:
        operation = OPERATIONS[recipe.fit]
        return _enlarged(operation.cut(shared.at(wanted, keep=operation.KEEPS_ASPECT), recipe.size), recipe.size)
    except pyvips.Error as error:
        raise BadImage(f"the variant cannot be made: {reason(error)}") from None


def _enlarged(cut: Any, size: Size) -> Any:
    return cut if (cut.width, cut.height) == size else scaled(cut, size)


def master(source: Size, kept: Sequence[Size], stretched: Sequence[Size] = ()) -> Size:
    """How large the shared picture must be so that the rule of sharing holds for every size."""
    largest = max([*kept, *(times(cover(source, size), TWICE) for size in stretched)])
    if largest[0] >= source[0] or largest[1] >= source[1]:
        return source
    if all(size == largest or twice(largest, size) for size in kept):
        return largest
    return times(source, min(1.0, TWICE * max(largest[0] / source[0], largest[1] / source[1])))


def twice(picture: Size, wanted: Size) -> bool:
    """At least twice as large, rounding aside."""
    return picture[0] + 1 >= TWICE * wanted[0] and picture[1] + 1 >= TWICE * wanted[1]


def _ample(picture: Size, wanted: Size) -> bool:
    """So much larger that what it lost by its own scaling cannot be seen. Chains stay short, and so do their errors."""
    return twice(picture, times(wanted, TWICE))


class _Shared:
    """The pictures at hand, the source's aspect in all of them."""

    def __init__(self, decoded: Any) -> None:
        self._whole: Size = (decoded.width, decoded.height)
        self._pictures = {self._whole: decoded}

    def at(self, size: Size, *, keep: bool) -> Any:
        if size in self._pictures:
            return self._pictures[size]
        base = self._pictures[min(have for have in self._pictures if _ample(have, size) or have == self._whole)]
        picture = scaled(base, size).copy_memory()
        if keep:
            self._pictures[size] = picture
        return picture


def _animation(original: Original, recipe: Recipe) -> Any:
    """Frames under each other, as libvips wants them. What to cut is decided once, on the first frame."""
    pyvips = vips()
    operation = OPERATIONS[recipe.fit]
    wanted = operation.scaled(original.size, recipe.size)
    try:
        frames = original.frames()
    except BadImage as error:
        raise Undecodable(error.detail) from None
    try:
        whole = scaled(frames[0], wanted).copy_memory()
        first = operation.cut(whole, recipe.size)
        area = (whole.xoffset - first.xoffset, whole.yoffset - first.yoffset, first.width, first.height)
        cut = [_enlarged(scaled(frame, wanted).crop(*area), recipe.size) for frame in frames]
        joined = pyvips.Image.arrayjoin(cut, across=1).copy_memory()
    except pyvips.Error as error:
        raise BadImage(f"the animation cannot be scaled: {reason(error)}") from None
    joined.set_type(pyvips.GValue.gint_type, "page-height", recipe.h)
    return joined
