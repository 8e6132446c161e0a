"""What libvips may do here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyvips

from core.errors import Misconfigured
from imaging import engine
from tests.pictures import encoded, photo


@pytest.fixture
def fresh() -> Iterator[None]:
    engine.vips.cache_clear()
    yield
    engine.vips.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_an_old_libvips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyvips, "version", lambda part: (8, 18, 2)[part])
    with pytest.raises(Misconfigured, match=r"8\.18\.3"):
        engine.vips()


def test_untrusted_loaders_are_blocked() -> None:
    vips = engine.vips()
    with pytest.raises(vips.Error, match="blocked"):
        vips.Image.svgload_buffer(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')


def test_looking_at_pictures_loads_no_image_library() -> None:
    """The web process probes and resolves; it must not carry libvips or Pillow for that."""
    code = "import sys, imaging.probe, imaging.recipe; sys.exit(bool({'pyvips', 'PIL'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


RENDER = """
import sys
from pathlib import Path
from imaging.recipe import Recipe
from imaging.render import Rendered, render
source = Path(sys.argv[1])
recipes = [Recipe(1600, 1200, "fit", "jpg", 80), Recipe(400, 400, "crop", "webp", 80)]
with source.open("rb") as file:
    found = list(render(file.fileno(), source.stat().st_size, recipes, source.parent))
assert all(isinstance(result, Rendered) for result in found)
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10)
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_huge_picture_is_streamed(kind: str, tmp_path: Path) -> None:
    """48 megapixels are 144 MB of pixels; rendering holds the shared picture and some lines of the source."""
    source = tmp_path / "huge"
    options = {"PNG": {"compress_level": 1}, "TIFF": {"compression": "tiff_adobe_deflate"}}.get(kind, {})
    source.write_bytes(encoded(photo(800, 600).resize((8000, 6000), 0), kind, **options))
    done = subprocess.run(
        [sys.executable, "-c", RENDER, str(source)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) < 230
