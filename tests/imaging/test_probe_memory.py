"""A small picture in a file of 1 GiB costs the process that looks at it next to nothing."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pictures import MEDIA_TYPES, animated, encoded, photo

GIB = 1 << 30
MOST_GROWTH_KIB = 32 << 10

LOOK = """
import resource, sys
from core.errors import Rejected
from core.sections import Limits
from imaging.probe import count, probe
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        size = file.seek(0, 2)
        try:
            facts = probe(file, size=size, limits=Limits())
            print(facts.media_type, facts.width, count(file, facts, size=size, limits=Limits()).frames)
        except Rejected as error:
            print(error.code)
print(peak() - before)
"""


def look(*files: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *map(str, files)], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.splitlines()


def sparse(path: Path, *pieces: tuple[int, bytes]) -> Path:
    """A file of 1 GiB with `pieces` at their offsets and holes everywhere else."""
    with path.open("wb") as file:
        for offset, piece in pieces:
            file.seek(offset)
            file.write(piece)
        os.truncate(file.fileno(), GIB)
    return path


def test_padding_after_the_picture(tmp_path: Path) -> None:
    """The way of every upload test, for each format."""
    files = [sparse(tmp_path / kind, (0, encoded(photo(), kind))) for kind in MEDIA_TYPES]
    *said, growth = look(*files)
    assert said == [f"{media_type} 320 1" for media_type in MEDIA_TYPES.values()]
    assert int(growth) <= MOST_GROWTH_KIB


def test_padding_inside_the_picture(tmp_path: Path) -> None:
    """A chunk, box or gap of nearly 1 GiB where the format allows one, before what the probe looks for."""
    png, tiff, webp, avif = (encoded(photo(), kind) for kind in ("PNG", "TIFF", "WEBP", "AVIF"))
    gap = GIB - (1 << 20)
    directory = struct.unpack("<I", tiff[4:8])[0]
    files = [
        sparse(tmp_path / "png", (0, png[:33] + struct.pack(">I", gap) + b"prIv"), (33 + 12 + gap, png[33:])),
        sparse(tmp_path / "tiff", (0, tiff[:4] + struct.pack("<I", gap) + tiff[8:]), (gap, tiff[directory:])),
        sparse(
            tmp_path / "webp",
            (0, b"RIFF" + struct.pack("<I", GIB - 8) + b"WEBPjunk" + struct.pack("<I", gap)),
            (20 + gap, webp[12:]),
        ),
        sparse(tmp_path / "avif", (0, avif[:32] + struct.pack(">I", gap) + b"free"), (32 + gap, avif[32:])),
    ]
    assert avif[36:40] == b"meta"
    *said, growth = look(*files)
    assert said == [f"image/{name} 320 1" for name in ("png", "tiff", "webp", "avif")]
    assert int(growth) <= MOST_GROWTH_KIB


def _gif_flood() -> bytes:
    gif = encoded(photo(8, 8), "GIF")
    return gif[:-1] * 2


def _jpeg_flood() -> bytes:
    return b"\xff\xd8" + b"\xff\xfe\0\x02" * (8 << 20)


def _gif_of_nothing() -> bytes:
    gif = animated("GIF")
    return gif[:13] + b"\x21\xfe" + b"\x01\0" * (8 << 20)


@pytest.mark.parametrize("flood", [_gif_flood, _jpeg_flood, _gif_of_nothing])
def test_floods_of_blocks_end_soon(flood: Callable[[], bytes], tmp_path: Path) -> None:
    file = tmp_path / "flood"
    file.write_bytes(flood())
    said, growth = look(file)
    assert said == "bad-image"
    assert int(growth) <= MOST_GROWTH_KIB
