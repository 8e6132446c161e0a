"""Photographs as cameras and phones send them, made from `examples/`: 2400 x 1800, about 450 KiB."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "grass", "gravel")
SIZE = (2400, 1800)
BYTES = 450 << 10
NOISE = 3.0
SMALL_BYTES = 20 << 10


def photographs() -> list[bytes]:
    return [_photograph(EXAMPLES / f"{name}.jpg", seed) for seed, name in enumerate(NAMES)]


def _photograph(source: Path, seed: int) -> bytes:
    """Scaled up, it gets a sensor's noise: without detail it would be cheaper to decode than what it stands for."""
    with Image.open(source) as picture:
        large = ImageOps.fit(picture.convert("RGB"), SIZE, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0, NOISE, (SIZE[1], SIZE[0], 1))
    noisy = Image.fromarray(np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8))
    return _of_size(noisy, BYTES)


def small() -> bytes:
    """One JPEG of about 20 KiB."""
    with Image.open(EXAMPLES / "coffee.jpg") as picture:
        return _of_size(picture.convert("RGB").resize((400, 267)), SMALL_BYTES)


def large(path: Path, size: int) -> Path:
    """A JPEG padded to `size` at the end; the padding takes no disk and no time to read."""
    path.write_bytes(small())
    os.truncate(path, size)
    return path


def _of_size(picture: Image.Image, size: int) -> bytes:
    """With the JPEG quality that comes nearest from below."""
    low, high = 5, 98
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_jpeg(picture, middle)) <= size else (low, middle - 1)
    return _jpeg(picture, low)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def unique(jpeg: bytes) -> bytes:
    """The same picture in bytes that were never seen: a comment after the first marker."""
    comment = os.urandom(16)
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]
