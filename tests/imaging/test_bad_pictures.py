"""Broken and hostile pictures: an error of ours for each, and the process lives. A child renders the worst of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import Corrupt, Rejected
from imaging.recipe import Recipe
from imaging.render import Rendered, RenderFailed, render
from tests.imaging.rendering import results
from tests.pictures import MEDIA_TYPES, animated, encoded, oriented, photo

SMALL = [Recipe(40, 30, "fit", "webp", 80), Recipe(20, 20, "crop", "jpg", 80)]

CHILD = """
import json, sys
from pathlib import Path
from imaging.recipe import Recipe
from imaging.render import Rendered, render
folder = Path(sys.argv[1])
recipes = [Recipe(40, 30, "fit", "webp", 80), Recipe(20, 20, "crop", "jpg", 80)]
for path in sorted(folder.glob("*.in")):
    with path.open("rb") as file:
        found = list(render(file.fileno(), path.stat().st_size, recipes, folder))
    good = [result for result in found if isinstance(result, Rendered)]
    codes = sorted({result.error.code for result in found if result not in good})
    print(json.dumps([path.stem, len(found), len(good), codes]))
"""


def outcomes(folder: Path) -> dict[str, tuple[int, int, list[str]]]:
    """Of each `.in` file: results, good ones, codes of the errors. The child must not die of any."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(folder)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (total, good, codes) for name, total, good, codes in lines}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_a_cut_picture_fails_visibly(kind: str, tmp_path: Path) -> None:
    data = encoded(photo(800, 600), kind)
    for sixteenth in range(1, 16):
        (tmp_path / f"{sixteenth:02}.in").write_bytes(data[: len(data) * sixteenth // 16])
    found = outcomes(tmp_path)
    assert len(found) == 15
    for name, (total, good, codes) in found.items():
        assert (total, good) == (2, 0), f"{name}/16 of a {kind} passed as a whole picture"
        assert set(codes) <= {"bad-image", "unsupported-type"}


def test_a_cut_progressive_jpeg_fails_visibly(tmp_path: Path) -> None:
    data = encoded(photo(800, 600), "JPEG", progressive=True)
    for sixteenth in range(1, 16):
        (tmp_path / f"{sixteenth:02}.in").write_bytes(data[: len(data) * sixteenth // 16])
    assert all(good == 0 for _, good, _ in outcomes(tmp_path).values())


def test_flipped_bits_never_end_the_process(tmp_path: Path) -> None:
    for kind in MEDIA_TYPES:
        data = oriented(6, kind, 160, 120) if kind != "GIF" else animated("GIF")
        step = max(1, len(data) // 60)
        for number, at in enumerate(range(0, len(data), step)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << number % 8
            (tmp_path / f"{kind}-{number}.in").write_bytes(flipped)
    found = outcomes(tmp_path)
    assert len(found) > 300
    for total, good, codes in found.values():
        assert total == 2
        assert good == 2 or set(codes) <= {"bad-image", "unsupported-type"}


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'


@pytest.mark.parametrize(
    "data",
    [
        SVG,
        b"%PDF-1.4\n%%EOF",
        b"\x08\xf2\xa6\xb6" + bytes(200),
        b"P6 2 2 255\n" + bytes(12),
        b"",
        b"\xff\xd8\xff",
        encoded(photo(), "JPEG")[:200] + SVG,
        b"\x89PNG\r\n\x1a\n" + SVG,
        b"GIF89a" + SVG,
        b"II*\0" + SVG,
        b"RIFF\x10\0\0\0WEBP" + SVG,
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + SVG,
    ],
)
def test_other_formats_and_disguises_are_refused(data: bytes, tmp_path: Path) -> None:
    for result in results(data, SMALL, tmp_path):
        assert isinstance(result, RenderFailed)
        assert isinstance(result.error, Rejected)


def test_what_follows_a_picture_is_not_read(tmp_path: Path) -> None:
    """A JPEG that lacks its end must not be completed by the bytes behind it."""
    data = encoded(photo(), "JPEG")
    assert all(isinstance(result, RenderFailed) for result in results(data[:-400], SMALL, tmp_path))
    assert all(isinstance(result, Rendered) for result in results(data, SMALL, tmp_path))


def test_an_animation_that_lies_about_its_frames(tmp_path: Path) -> None:
    """More frames wanted than there are: what can be shown is shown or it fails, the process lives."""
    recipe = Recipe(32, 24, "fit", "gif", None, animated=True)
    [whole] = results(animated("GIF"), [recipe], tmp_path)
    [cut] = results(animated("GIF")[:-900], [recipe], tmp_path)
    assert isinstance(whole, Rendered)
    assert isinstance(cut, RenderFailed)


def test_a_file_shorter_than_it_was_is_not_the_pictures_fault(tmp_path: Path) -> None:
    data = encoded(photo(), "JPEG")
    (tmp_path / "short").write_bytes(data)
    with (tmp_path / "short").open("rb") as file, pytest.raises(Corrupt):
        list(render(file.fileno(), len(data) + 1, SMALL, tmp_path))
