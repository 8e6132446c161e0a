"""Makes small pictures for tests, with Pillow: an independent hand beside the code under test."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}


def photo(width: int = 320, height: int = 240, mode: str = "RGB") -> Image.Image:
    """A smooth picture that differs in all four corners; alpha, where the mode has it, rises from left to right."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = 127 + 100 * np.sin(x / 17) * np.cos(y / 23)
    pixels = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    if mode in {"RGBA", "LA"}:
        picture.putalpha(Image.fromarray(red.astype(np.uint8)))
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def animated(kind: str, frames: int = 5, width: int = 64, height: int = 48) -> bytes:
    first, *rest = [photo(width, height).rotate(7 * number) for number in range(frames)]
    return encoded(first, kind, save_all=True, append_images=rest, duration=50, loop=0)


def oriented(orientation: int, kind: str = "JPEG", width: int = 320, height: int = 240, **options: Any) -> bytes:
    """With an EXIF orientation, GPS coordinates and a camera's name."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Secretive Camera Works"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    return encoded(photo(width, height), kind, exif=exif, **options)
