"""What a header says of decoded bytes is what libvips gives out, and no file gets libvips to give out more."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.errors import BadImage, DecodedTooLarge, Rejected, TooManyPixels
from core.sections import Limits
from imaging.decode import LOADERS, SAMPLE_BYTES
from imaging.pixels import Described, sample_bytes
from imaging.probe import describe, sniff
from tests.pictures import animated, encoded, photo, tiff

ROOM = Limits(max_pixels=1 << 40, max_decoded_bytes=1 << 40)


def look(data: bytes, limits: Limits = ROOM) -> Described:
    return describe(io.BytesIO(data), size=len(data), limits=limits)


def given_out(data: bytes) -> int:
    media_type = sniff(data[:64])
    assert media_type is not None
    pages = {"n": -1} if media_type in ("image/gif", "image/webp") else {}
    found = getattr(pyvips.Image, LOADERS[media_type])(pyvips.Source.new_from_memory(data), **pages)
    return int(found.width * found.height * found.bands * SAMPLE_BYTES[found.format])


def grey(kind: type[Any]) -> Image.Image:
    return Image.fromarray(np.zeros((30, 40), kind))


def vips(bands: int, form: str, save: str, **options: Any) -> bytes:
    made: bytes = getattr(pyvips.Image.black(40, 30, bands=bands).cast(form), save)(**options)
    return made


def flavours() -> dict[str, bytes]:
    made = {
        f"{kind} {mode}": encoded(photo(40, 30, mode), kind)
        for kind, modes in {
            "JPEG": ("L", "RGB", "CMYK"),
            "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
            "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
            "WEBP": ("RGB", "RGBA"),
            "AVIF": ("RGB", "RGBA"),
            "GIF": ("L", "P", "RGB"),
        }.items()
        for mode in modes
    }
    made |= {f"animated {kind}": animated(kind) for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF")}
    made |= {
        f"PNG {mode} with a transparent colour": encoded(photo(40, 30, mode), "PNG", transparency=3) for mode in "LP"
    }
    made["PNG of 16 bits"] = encoded(grey(np.uint16), "PNG")
    made["PNG of 4 x 16 bits"] = vips(4, "ushort", "pngsave_buffer", bitdepth=16)
    made["TIFF of float"] = encoded(grey(np.float32), "TIFF")
    for bands in (1, 3, 4, 5, 8):
        for form in ("uchar", "ushort", "uint", "int", "float"):
            made[f"TIFF of {bands} x {form}"] = vips(bands, form, "tiffsave_buffer")
    made |= {f"TIFF of {bits} bits": vips(1, "uchar", "tiffsave_buffer", bitdepth=bits) for bits in (1, 2, 4)}
    made["TIFF of JPEG"] = encoded(photo(40, 30), "TIFF", compression="jpeg")
    made["TIFF in tiles"] = vips(3, "uchar", "tiffsave_buffer", tile=True, tile_width=16, tile_height=16)
    for bits in (8, 10, 12):
        picture = pyvips.Image.black(40, 30, bands=3).copy(interpretation="rgb16").cast("ushort")
        made[f"AVIF of {bits} bits"] = picture.heifsave_buffer(compression="av1", bitdepth=bits, effort=0)
    return made


def test_the_header_says_what_the_decoder_gives_out() -> None:
    for name, data in flavours().items():
        said, real = look(data).decoded_bytes, given_out(data)
        assert said >= real, f"{name}: {said} were announced, {real} come"
        if not name.startswith(("GIF", "animated", "TIFF in tiles")):
            assert said == real, f"{name}: {said} were announced, {real} come"


def test_the_budget_is_held_to_a_byte_and_named() -> None:
    for data in flavours().values():
        bytes_ = look(data).decoded_bytes
        assert look(data, Limits(max_decoded_bytes=bytes_)).decoded_bytes == bytes_
        with pytest.raises(DecodedTooLarge, match=rf"{bytes_} bytes .*{bytes_ - 1} .*limits\.max_decoded_bytes"):
            look(data, Limits(max_decoded_bytes=bytes_ - 1))


@given(st.integers(1, 1024))
def test_bits_become_whole_bytes(bits: int) -> None:
    assert sample_bytes(bits) * 8 >= bits
    assert sample_bytes(bits) == 1 or sample_bytes(bits) * 4 < bits


MANY = 4000
ROW = 768 << 10
LYING: dict[str, bytes] = {
    "plain": tiff(500, 500, MANY),
    "as LONG": tiff(8, 8, 3, 8, (277, 4, [MANY])),
    "as LONG8": tiff(8, 8, 3, 8, (277, 16, [MANY]), big=True),
    "before the true one": tiff(8, 8, MANY, 8, (277, 3, [3])),
    "after the true one": tiff(8, 8, 3, 8, (277, 3, [MANY])),
    "as a list": tiff(8, 8, 3, 8, (277, 3, [3, MANY])),
    "as a list elsewhere": tiff(8, 8, 3, 8, (277, 4, [3, 3, 3, MANY])),
    "big-endian": tiff(8, 8, MANY, order=">"),
    "BigTIFF": tiff(8, 8, MANY, big=True),
    "none": tiff(8, 8).replace(struct.pack("<HHIH", 277, 3, 1, 3), struct.pack("<HHIH", 277, 3, 1, 0)),
    "too many bits": tiff(8, 8, 1, 128),
    "too many bits in a list": tiff(8, 8, 3, 8, (258, 3, [8, 8, 128])),
    "no bits": tiff(8, 8, 3, 8).replace(struct.pack("<3H", 8, 8, 8), bytes(6)),
}  # fmt: skip


@pytest.mark.parametrize("how", LYING)
def test_samples_that_nobody_has_are_refused(how: str) -> None:
    with pytest.raises(BadImage, match=r"samples of \d+ bits in a pixel: 1 to 8 of at most 64"):
        look(LYING[how])


@given(
    width=st.integers(1, 70_000),
    height=st.integers(1, 70_000),
    samples=st.integers(1, 16),
    bits=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]),
)
def test_what_a_tiff_costs_is_known_before(width: int, height: int, samples: int, bits: int) -> None:
    data = bytearray(tiff(1, 1, samples, bits))
    for tag, value in ((256, width), (257, height)):
        at = data.index(struct.pack("<HHII", tag, 4, 1, 1))
        data[at + 8 : at + 12] = struct.pack("<I", value)
    limits = Limits(max_pixels=1 << 40)
    fits = max(width, height) <= 65_535 and samples <= 8 and bits <= 64 and width * samples * sample_bytes(bits) <= ROW
    if fits and width * height * samples * sample_bytes(bits) <= limits.max_decoded_bytes:
        assert look(bytes(data), limits).decoded_bytes == width * height * samples * sample_bytes(bits)
        return
    with pytest.raises(Rejected):
        look(bytes(data), limits)


def test_tiles_count_as_a_whole() -> None:
    data = tiff(100, 100, 3, 8, (322, 3, [9000]), (323, 3, [9000]))
    assert look(data).decoded_bytes == 9000 * 9000 * 3
    with pytest.raises(DecodedTooLarge):
        look(tiff(100, 100, 3, 8, (322, 4, [65_536]), (323, 4, [65_536])), Limits())


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("samples", "bits"), [(1, 64), (3, 32), (4, 32), (4, 16), (8, 16), (8, 32), (8, 64), (8, 1)])
def test_a_row_has_a_bound_however_few_there_are(samples: int, bits: int, order: str) -> None:
    most = min(65_535, ROW // (samples * sample_bytes(bits)))
    assert look(tiff(most, 2, samples, bits, order=order)).row_bytes <= ROW
    if most < 65_535:
        with pytest.raises(DecodedTooLarge, match=f"a row of the picture is .*{ROW}"):
            look(tiff(most + 1, 1, samples, bits, order=order))
    lying = tiff(2, most, samples, bits, (274, 3, [6]), order=order)  # shown as wide as that, and stored upright
    assert look(lying).facts.width == most


def test_two_rows_of_tiles_have_a_bound() -> None:
    def tiled(rows: int) -> Described:
        return look(tiff(60_000, 8000, 3, 8, (322, 3, [16]), (323, 3, [rows])), Limits(max_pixels=1 << 40))

    most = (512 << 20) // (60_000 * 3 * 2)
    assert tiled(most).tiles_bytes <= 512 << 20
    with pytest.raises(DecodedTooLarge, match="two rows of the picture's tiles"):
        tiled(most + 1)


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536)])
def test_no_side_is_endless(size: tuple[int, int]) -> None:
    for data in (encoded(Image.new("1", size), "PNG"), encoded(Image.new("1", size), "TIFF"), tiff(*size)):
        with pytest.raises(TooManyPixels, match="65535"):
            look(data)
    assert look(encoded(Image.new("1", (min(size[0], 65_535), min(size[1], 65_535))), "PNG"))


CHILD = """
import json, sys
from pathlib import Path
from core.errors import Rejected
from core.sections import Limits, Variants
from imaging.probe import count, probe
from imaging.recipe import Parameters, resolve
from imaging.render import Rendered, render
from itertools import product
folder = Path(sys.argv[1])
WAYS = [("fit", False), ("fit", True), ("crop", False), ("crop", True), ("fill", False), ("stretch", False)]
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10
for path in sorted(folder.glob("*.in")):
    size, done = path.stat().st_size, 0
    with path.open("rb") as file:
        try:
            facts = count(file, probe(file, size=size, limits=Limits()), size=size, limits=Limits())
        except Rejected as error:
            print(json.dumps([path.stem, error.code, peak()]))
            continue
        for box, (fit, enlarge) in product(json.loads(sys.argv[2]), WAYS):
            asked = {"w": box[0], "h": box[1], "fit": fit, "enlarge": enlarge, "format": "jpg"}
            [result] = render(file.fileno(), size, [resolve(Parameters.parse(asked), facts, Variants())], folder)
            if isinstance(result, Rendered):
                assert fit in ("fit", "crop") or (result.width, result.height) == tuple(box)
                done += 1
            else:
                print(json.dumps([path.stem, result.error.code, peak()]))
    print(json.dumps([path.stem, done, peak()]))
"""
BOXES = [(8192, 1), (1, 8192)]
WAYS = 6
MIB_AT_MOST = 1024


def hostile() -> dict[str, bytes]:
    """Small files that once took gigabytes."""
    liar = encoded(photo(1200, 900), "AVIF")
    size = struct.pack(">4I", 20, int.from_bytes(b"ispe", "big"), 0, 1200)
    assert liar.count(size) == 1
    made = {
        "bands 500x500x4000": tiff(500, 500, 4000),
        "bands 2000x400x2000": tiff(2000, 400, 2000),
        "bands 2000x2000x8 of 32 bits": tiff(2000, 2000, 8, 32),
        "bands 20000x100x8 of 32 bits": tiff(20_000, 100, 8, 32),
        "bands 100x20000x8 of 32 bits": tiff(100, 20_000, 8, 32),
        "wide 65535x100x8 of 32 bits": tiff(65_535, 100, 8, 32),
        "wide 65535x100x3 of 32 bits": tiff(65_535, 100, 3, 32),
        "wide 1e7x10": tiff(10_000_000, 10),
        "lying avif": liar.replace(size, size[:12] + struct.pack(">I", 100)),
    }
    for width, height in ((1, 65_535), (60_000, 100), (1000, 12_000), (3, 3)):
        made[f"aspect {width}x{height}"] = encoded(Image.new("RGBA", (width, height), "#12345678"), "PNG")
    return made


def test_hostile_pictures_are_refused_or_cost_a_gibibyte_at_most(tmp_path: Path) -> None:
    pictures = hostile()
    for name, data in pictures.items():
        (tmp_path / f"{name}.in").write_bytes(data)
    command = [sys.executable, "-W", "error", "-c", CHILD, str(tmp_path), json.dumps(BOXES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [tuple(line) for line in map(json.loads, done.stdout.splitlines())]
    assert {name for name, _, _ in found} == set(pictures)
    assert max(peak for _, _, peak in found) <= MIB_AT_MOST, found
    rendered = {name: result for name, result, _ in found if isinstance(result, int)}
    for name in pictures:
        if name.startswith(("aspect", "bands 2000x2000", "bands 20000", "bands 100x")):
            assert rendered[name] == len(BOXES) * WAYS, f"{name}: {found}"
