"""Rendered variants against Pillow: sizes, pixels, what is stripped, what is shared."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, ImageOps
from skimage.metrics import structural_similarity

from core.errors import BadImage, Unavailable
from imaging.operations import OPERATIONS
from imaging.recipe import FORMATS
from imaging.render import Rendered, RenderFailed, master, twice
from tests.imaging.rendering import difference, pixels, recipes_for, rendered, results
from tests.pictures import MEDIA_TYPES, animated, encoded, oriented, photo

EXAMPLES = sorted(
    path for path in (Path(__file__).parents[2] / "examples").iterdir() if path.suffix not in {".md", ".py"}
)
PHOTOS = [path for path in EXAMPLES if path.suffix == ".jpg"]
EXACT: dict[str, Any] = {"format": "png"}


@pytest.mark.parametrize("source", MEDIA_TYPES)
@pytest.mark.parametrize("target", FORMATS)
def test_every_format_becomes_every_other(source: str, target: str, tmp_path: Path) -> None:
    original = photo()
    [picture] = rendered(encoded(original, source), tmp_path, {"w": 160, "format": target})
    assert picture.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "gif": "GIF"}[target]
    assert difference(picture, original.resize((160, 120), Image.Resampling.LANCZOS)) < 8


def test_a_result_says_what_its_file_is(tmp_path: Path) -> None:
    data = encoded(photo(), "JPEG")
    [result] = results(data, recipes_for(data, {"w": 100, "h": 50, "fit": "crop", "format": "webp"}), tmp_path)
    assert isinstance(result, Rendered)
    content = result.path.read_bytes()
    assert result.path.parent == tmp_path
    assert (result.size, result.sha256) == (len(content), hashlib.sha256(content).digest())
    assert (result.media_type, result.width, result.height) == ("image/webp", 100, 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    data = oriented(orientation, kind)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    turned, small = rendered(data, tmp_path, {"format": "png"}, {"w": 60, "format": "avif"})
    assert turned.size == expected.size
    assert difference(turned, expected) < 3
    assert difference(small, expected.resize(small.size, Image.Resampling.LANCZOS)) < 8


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_no_metadata_is_left(kind: str, target: str, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    [picture] = rendered(oriented(6, kind, icc_profile=profile), tmp_path, {"w": 100, "format": target})
    content = next(tmp_path.glob(f"0.{target}")).read_bytes()
    assert not dict(picture.getexif())
    assert "icc_profile" not in picture.info
    assert b"Secretive" not in content
    assert b"Exif" not in content


def test_fill_cuts_around_the_centre(tmp_path: Path) -> None:
    original = photo(400, 200)
    [picture] = rendered(encoded(original, "PNG"), tmp_path, {"w": 100, "h": 100, "fit": "fill"})
    assert difference(picture, ImageOps.fit(original, (100, 100), Image.Resampling.LANCZOS)) < 2


def test_fill_reaches_a_box_larger_than_the_source(tmp_path: Path) -> None:
    original = photo(100, 50)
    [picture] = rendered(encoded(original, "PNG"), tmp_path, {"w": 200, "h": 200, "fit": "fill"})
    assert difference(picture, ImageOps.fit(original, (200, 200), Image.Resampling.LANCZOS)) < 3


def test_crop_fills_the_box_with_what_matters(tmp_path: Path) -> None:
    original = Image.new("RGB", (600, 200), "#5a5a5a")
    original.paste(Image.effect_noise((120, 120), 90).convert("RGB"), (460, 40))
    original.paste("#e02020", (490, 70, 550, 130))
    [picture] = rendered(encoded(original, "PNG"), tmp_path, {"w": 100, "h": 100, "fit": "crop"})
    assert picture.size == (100, 100)
    red = pixels(picture)[..., 0] - pixels(picture)[..., 1]
    assert (red > 100).sum() > 500, "the only thing in the picture was cut away"


@pytest.mark.parametrize("path", PHOTOS[:2], ids=lambda path: path.name)
@pytest.mark.parametrize("box", [(900, 300), (300, 900), (640, 640)])
def test_what_is_cut_before_it_is_enlarged_is_the_same_picture(
    path: Path, box: tuple[int, int], tmp_path: Path
) -> None:
    """Compare with the whole picture enlarged and then cut, which could take any amount of memory."""
    with Image.open(path) as opened:
        small = ImageOps.exif_transpose(opened).convert("RGB")
    small.thumbnail((300, 300))
    [picture] = rendered(encoded(small, "PNG"), tmp_path, {"w": box[0], "h": box[1], "fit": "fill"})
    whole = ImageOps.fit(small, box, Image.Resampling.BICUBIC)
    assert picture.size == box
    assert structural_similarity(pixels(picture), pixels(whole), channel_axis=2, data_range=255) >= 0.97


def test_an_animation_is_cut_before_it_is_enlarged(tmp_path: Path) -> None:
    for fit in ("fill", "crop"):
        asked = {"w": 150, "h": 60, "fit": fit, "enlarge": True, "format": "webp"}
        [picture] = rendered(animated("GIF", frames=4), tmp_path, asked)
        assert (picture.n_frames, picture.size) == (4, (150, 60))


def test_stretch_gives_up_the_aspect(tmp_path: Path) -> None:
    original = photo(400, 200)
    [picture] = rendered(encoded(original, "PNG"), tmp_path, {"w": 50, "h": 150, "fit": "stretch"})
    assert difference(picture, original.resize((50, 150), Image.Resampling.LANCZOS)) < 2


def test_alpha_is_kept_or_flattened_on_white(tmp_path: Path) -> None:
    original = photo(mode="RGBA")
    white = Image.new("RGBA", original.size, "white")
    flat = Image.alpha_composite(white, original).convert("RGB")
    jpg, png, webp, avif = rendered(
        encoded(original, "PNG"), tmp_path, *({"format": name, "q": 95} for name in ("jpg", "png", "webp", "avif"))
    )
    assert difference(jpg, flat) < 3
    for kept in (png, webp, avif):
        assert kept.mode == "RGBA"
        assert difference(kept, original, "RGBA") < 4


def test_transparent_pixels_do_not_bleed(tmp_path: Path) -> None:
    """Scaling must weigh colours by alpha: what nobody sees must not tint the edge."""
    original = Image.new("RGBA", (200, 200), (0, 255, 0, 0))
    original.paste((255, 0, 0, 255), (100, 0, 200, 200))
    [picture] = rendered(encoded(original, "PNG"), tmp_path, {"w": 33})
    seen = pixels(picture, "RGBA")
    visible = seen[..., 3] > 25
    assert seen[visible][:, 1].max() < 12


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 256 * 64).reshape(64, 256).astype(np.uint16)
    [picture] = rendered(encoded(Image.fromarray(grey), "PNG"), tmp_path, EXACT)
    assert picture.mode == "L"
    assert np.abs(pixels(picture, "L") - grey / 257.0).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_other_pixels_than_rgb(mode: str, kind: str, tmp_path: Path) -> None:
    original = photo(mode=mode)
    [picture] = rendered(encoded(original, kind), tmp_path, EXACT)
    assert difference(picture, original, "RGBA") < 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb(kind: str, tmp_path: Path) -> None:
    """Without a profile the inks are taken for usual print: duller than Pillow's arithmetic, but the same picture."""
    original = photo()
    [picture] = rendered(encoded(original.convert("CMYK"), kind), tmp_path, EXACT)
    assert picture.mode == "RGB"
    assert difference(picture, original) < 45
    for channel in range(3):
        ours, theirs = pixels(picture)[..., channel].ravel(), pixels(original)[..., channel].ravel()
        assert np.corrcoef(ours, theirs)[0, 1] > 0.8


def test_a_colour_profile_is_honoured(tmp_path: Path) -> None:
    """The same colours, written in another space, come out the same."""
    swapped = Image.merge("RGB", photo().split()[::-1])
    wide = pyvips.Image.new_from_array(np.asarray(swapped)).copy(interpretation="srgb")
    data = wide.icc_transform("p3", input_profile="srgb", embedded=False).jpegsave_buffer(Q=97, subsample_mode="off")
    assert difference(Image.open(io.BytesIO(data)), swapped) > 4, "the space must differ for this test to mean anything"
    [picture] = rendered(data, tmp_path, EXACT)
    assert difference(picture, swapped) < 3


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
def test_animations_keep_their_frames_and_times(source: str, tmp_path: Path) -> None:
    gif, webp, still = rendered(
        animated(source, frames=6),
        tmp_path,
        {"w": 32},
        {"w": 24, "h": 24, "fit": "crop", "format": "webp"},
        {"w": 32, "format": "jpg"},
    )
    assert (gif.n_frames, gif.size) == (6, (32, 24))
    assert (webp.n_frames, webp.size) == (6, (24, 24))
    assert gif.info["duration"] == webp.info["duration"] == 50
    assert getattr(still, "n_frames", 1) == 1
    first = photo(64, 48).resize((32, 24), Image.Resampling.LANCZOS)
    assert difference(still, first) < 15


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "AVIF"])
def test_the_first_frame_stands_for_others(kind: str, tmp_path: Path) -> None:
    [picture] = rendered(animated(kind), tmp_path, {"format": "jpg"})
    assert difference(picture, photo(64, 48)) < 6


def test_a_bad_variant_does_not_fail_the_others(tmp_path: Path) -> None:
    data = encoded(photo(), "PNG")
    good, bad, *_ = recipes = recipes_for(data, {"w": 100}, {"w": 90, "format": "gif"}, {"w": 20})
    object.__setattr__(bad, "q", 7)  # the GIF encoder knows no quality
    one, two, three = results(data, recipes, tmp_path)
    assert isinstance(one, Rendered)
    assert isinstance(two, RenderFailed)
    assert isinstance(two.error, BadImage)
    assert isinstance(three, Rendered)
    assert one.media_type == good.media_type


@pytest.mark.parametrize("target", FORMATS)
def test_a_full_disk_is_no_fault_of_the_picture(target: str, tmp_path: Path) -> None:
    (tmp_path / f"0.{target}").symlink_to("/dev/full")
    data = encoded(photo(), "PNG")
    with pytest.raises(Unavailable, match="No space left"):
        results(data, recipes_for(data, {"format": target}), tmp_path)


def test_the_rule_of_sharing() -> None:
    source = (4000, 3000)
    assert master(source, [(1600, 1200), (800, 600), (533, 400), (200, 150)]) == (1600, 1200)
    assert master(source, [(1600, 1200), (1000, 750)]) == (3200, 2400)
    assert master(source, [(3000, 2250), (2900, 2175)]) == source
    assert master(source, [(5000, 3750)]) == source
    assert master(source, [(400, 300)], stretched=[(200, 900)]) == (2400, 1800)
    assert master(source, [(1600, 1200)], stretched=[(800, 20)]) == (1600, 1200)
    assert master((451, 300), [(400, 266), (200, 133)]) == (400, 266)
    assert twice((1601, 1201), (801, 601))
    assert not twice((1600, 1200), (802, 602))


def seen(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Colours that nobody sees do not count."""
    return pixels(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA")))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_sharing_cannot_be_seen(path: Path, tmp_path: Path) -> None:
    """Each variant made with the others is like the one made alone from the source: SSIM of at least 0.99."""
    data = path.read_bytes()
    longest = max(Image.open(io.BytesIO(data)).size)
    sides = [side for side in (1600, 800, 400, 200, 100, 50) if side < longest]
    asked: list[dict[str, Any]] = [{"w": side, "h": side, "format": "png"} for side in sides]
    shared = rendered(data, tmp_path, *asked)
    for number, parameters in enumerate(asked):
        [alone] = rendered(data, tmp_path, parameters)
        assert alone.size == shared[number].size
        likeness = structural_similarity(seen(alone), seen(shared[number]), channel_axis=2, data_range=255)
        assert likeness >= 0.99, f"{parameters}: {likeness:.4f}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_renders_by_every_operation(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    asked = [{"w": 120, "h": 100, "fit": fit, "format": "webp"} for fit in OPERATIONS]
    recipes = recipes_for(data, *asked)
    for picture, recipe in zip(rendered(data, tmp_path, *asked), recipes, strict=True):
        assert picture.size == recipe.size
