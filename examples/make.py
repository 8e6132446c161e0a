"""Makes the pictures of this folder: `python examples/make.py`. The same libraries make the same bytes.

Photographs come from scikit-image's package data, and only those whose docstring there says CC0 or public domain; see
README.md. The rest is made from them by Pillow and numpy, for the formats and oddities that photographs come in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
DATA = Path(skimage.__file__).parent / "data"

COPIED = ("rocket.jpg", "retina.jpg", "hubble_deep_field.jpg", "cell.png", "horse.png", "clock_motion.png")
"""Files as they are."""
PHOTOGRAPHS = {"astronaut.png": 92, "chelsea.png": 92, "coffee.png": 92}
"""Photographs that their package holds as PNG, saved as JPEG of this quality."""
TEXTURES = {"camera.png": 90, "gravel.png": 80, "brick.png": 80, "grass.png": 80}


def photograph(name: str) -> Image.Image:
    return Image.open(DATA / name).convert("RGB")


def alpha() -> None:
    """A cut-out: opaque in the middle, soft at the edge, nothing outside."""
    cup = photograph("coffee.png")
    y, x = np.mgrid[0 : cup.height, 0 : cup.width]
    distance = np.hypot((x - cup.width / 2) / (cup.width / 2), (y - cup.height / 2) / (cup.height / 2))
    mask = np.clip((0.95 - distance) / 0.25, 0, 1) * 255
    cup.putalpha(Image.fromarray(mask.astype(np.uint8)))
    cup.resize((450, 300), Image.Resampling.LANCZOS).save(HERE / "alpha.png", optimize=True)


def turned_with_place() -> None:
    """What a phone held upright writes: the pixels lie on their side, EXIF says so, and where it was taken."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Millrace"
    exif[0x0110] = "Example Camera"
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (48.0, 51.0, 29.6)
    place[3], place[4] = "E", (2.0, 17.0, 40.2)
    lying = photograph("astronaut.png").crop((0, 0, 512, 400)).transpose(Image.Transpose.ROTATE_90)
    lying.save(HERE / "orientation6-gps.jpg", quality=90, exif=exif)


def cmyk() -> None:
    """As for print, without a profile."""
    photograph("chelsea.png").convert("CMYK").save(HERE / "cmyk.jpg", quality=90)


def sixteen_bit() -> None:
    """Grey in 16 bits that no 8-bit picture could hold: a slow gradient under a photograph."""
    grey = np.asarray(Image.open(DATA / "camera.png").convert("L").resize((320, 320))).astype(np.uint32)
    slope = np.linspace(0, 255, grey.size).reshape(grey.shape).astype(np.uint32)
    Image.fromarray((grey * 256 + slope).astype(np.uint16)).save(HERE / "sixteen-bit.png")


def animated() -> None:
    """Twenty-four frames of a disc that goes round."""
    frames = []
    for step in range(24):
        frame = Image.new("RGB", (320, 240), "#10324a")
        x, y = 160 + 90 * np.cos(step * np.pi / 12), 120 + 70 * np.sin(step * np.pi / 12)
        ImageDraw.Draw(frame).ellipse((x - 30, y - 30, x + 30, y + 30), fill="#f2a33a")
        frames.append(frame)
    frames[0].save(HERE / "animated.gif", save_all=True, append_images=frames[1:], duration=60, loop=0)


def large_progressive() -> None:
    """Twelve megapixels in few bytes: four enlarged photographs with a little noise, progressive."""
    wide, high = 4000, 3000
    picture = Image.new("RGB", (wide, high))
    for number, name in enumerate(("coffee.png", "chelsea.png", "rocket.jpg", "astronaut.png")):
        part = photograph(name).resize((wide // 2, high // 2), Image.Resampling.BICUBIC)
        picture.paste(part, (number % 2 * wide // 2, number // 2 * high // 2))
    noise = np.random.default_rng(12).normal(0, 1.5, (high, wide, 1))
    pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(HERE / "large-progressive.jpg", quality=62, progressive=True, optimize=True)


def other_containers() -> None:
    photograph("chelsea.png").save(HERE / "cat.webp", quality=85, method=4)
    photograph("coffee.png").save(HERE / "cup.avif", quality=60, speed=6)
    pages = [Image.open(DATA / name).convert("L").resize((256, 256)) for name in ("gravel.png", "brick.png")]
    pages[0].save(HERE / "two-pages.tiff", save_all=True, append_images=pages[1:], compression="tiff_adobe_deflate")


MADE: tuple[Callable[[], None], ...] = (
    alpha,
    turned_with_place,
    cmyk,
    sixteen_bit,
    animated,
    large_progressive,
    other_containers,
)


def main() -> None:
    for name in COPIED:
        shutil.copyfile(DATA / name, HERE / name)
    for name, quality in PHOTOGRAPHS.items():
        photograph(name).save(HERE / Path(name).with_suffix(".jpg"), quality=quality, optimize=True)
    for name, quality in TEXTURES.items():
        Image.open(DATA / name).convert("L").save(HERE / Path(name).with_suffix(".jpg"), quality=quality, optimize=True)
    for make in MADE:
        make()


if __name__ == "__main__":
    main()
