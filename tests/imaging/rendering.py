"""Renders bytes as a worker would: from a file that goes on after the picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.sections import Limits, Variants
from imaging.probe import probe
from imaging.recipe import Parameters, Recipe, resolve
from imaging.render import Rendered, RenderFailed, render

MANIFEST = b"\xff\xd8\xff not part of the picture" * 40


def recipes_for(data: bytes, *asked: dict[str, Any]) -> list[Recipe]:
    facts = probe(io.BytesIO(data), size=len(data), limits=Limits())
    return [resolve(Parameters.parse(parameters), facts, Variants()) for parameters in asked]


def results(data: bytes, recipes: list[Recipe], directory: Path) -> list[Rendered | RenderFailed]:
    """In the order of the recipes."""
    staged = directory / "staged"
    staged.write_bytes(data + MANIFEST)
    with staged.open("rb") as file:
        found = list(render(file.fileno(), len(data), recipes, directory))
    return sorted(found, key=lambda result: result.index)


def rendered(data: bytes, directory: Path, *asked: dict[str, Any]) -> list[Image.Image]:
    """What Pillow sees in the files."""
    pictures = []
    for result in results(data, recipes_for(data, *asked), directory):
        assert isinstance(result, Rendered), result
        picture = Image.open(io.BytesIO(result.path.read_bytes()))
        picture.load()
        pictures.append(picture)
    return pictures


def pixels(picture: Image.Image, mode: str = "RGB") -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(picture.convert(mode)).astype(np.float64)


def difference(one: Image.Image, other: Image.Image, mode: str = "RGB") -> float:
    """Mean absolute difference, 0 to 255."""
    return float(np.abs(pixels(one, mode) - pixels(other, mode)).mean())
