"""The bare limit of the line: the imaging code in a loop, in as many processes, without queue, web or database."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from core.sections import Limits, Variants
from imaging.probe import probe
from imaging.recipe import Parameters, Recipe, resolve
from imaging.render import Rendered, render

VARIANTS: dict[str, dict[str, str | int | bool]] = {
    "large": {"w": 1600, "format": "jpg", "q": 80},
    "medium": {"w": 800, "format": "webp", "q": 80},
    "square": {"w": 400, "h": 400, "fit": "crop", "format": "webp", "q": 80},
    "small": {"w": 200, "format": "avif", "q": 50},
}
"""The profiles of both sides, the largest first."""

PROCESSES = 2

StageSeconds = dict[str, float]
"""CPU seconds by stage of one picture."""


class BareLine:
    """Processes that are warm: the library is loaded before the first measured picture."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._pool = ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, pictures: Sequence[bytes]) -> tuple[float, list[StageSeconds]]:
        """Pictures per second, and where the CPU time of each went."""
        files = []
        for number, picture in enumerate(pictures):
            files.append(self._directory / str(number))
            files[-1].write_bytes(picture)
        began = time.monotonic()
        stages = list(self._pool.map(_render, files))
        return len(files) / (time.monotonic() - began), stages


def _render(file: Path) -> StageSeconds:
    """Every variant of one picture, into files, as a worker does it."""
    stages: StageSeconds = {}
    with file.open("rb") as body, tempfile.TemporaryDirectory(dir=file.parent) as directory:
        began = time.process_time()
        size = body.seek(0, 2)
        facts = probe(body, size=size, limits=Limits())
        recipes = [_recipe(name, resolve(Parameters.parse(VARIANTS[name]), facts, Variants())) for name in VARIANTS]
        stages["probe"] = time.process_time() - began
        for result in render(body.fileno(), size, [recipe for _, recipe in recipes], Path(directory)):
            if not isinstance(result, Rendered):
                raise TypeError(f"a variant failed: {result.error}")
            now = time.process_time()
            stages[recipes[result.index][0]] = now - began - sum(stages.values())
    return stages


def _recipe(name: str, recipe: Recipe) -> tuple[str, Recipe]:
    label = f"{recipe.w}x{recipe.h} {recipe.format}"
    return (f"decode and {label}" if name == "large" else label), recipe
