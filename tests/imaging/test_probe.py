"""The header probe against pictures made by Pillow: facts, limits, lies."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest
from PIL import Image

from core.errors import BadImage, Rejected, TooManyFrames, TooManyPixels, UnsupportedType
from core.model import ImageFacts
from core.sections import Limits
from imaging.probe import count, probe, sniff
from tests.pictures import MEDIA_TYPES, animated, encoded, oriented, photo

LIMITS = Limits()


def look(data: bytes, limits: Limits = LIMITS) -> ImageFacts:
    return probe(io.BytesIO(data), size=len(data), limits=limits)


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_says_type_and_size(kind: str) -> None:
    assert look(encoded(photo(321, 123), kind)) == ImageFacts(MEDIA_TYPES[kind], 321, 123, frames=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_reads_every_flavour(kind: str, options: dict[str, object]) -> None:
    facts = look(encoded(photo(99, 55), kind, **options))
    assert (facts.width, facts.height, facts.frames) == (99, 55, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_sees_alpha(kind: str) -> None:
    assert look(encoded(photo(mode="RGBA"), kind)).has_alpha
    assert not look(encoded(photo(), kind)).has_alpha


def test_sees_a_transparent_colour() -> None:
    palette = photo(mode="P")
    assert look(encoded(palette, "PNG", transparency=3)).has_alpha
    assert look(encoded(palette, "GIF", transparency=palette.getpixel((9, 9)))).has_alpha


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_as_displayed(kind: str, orientation: int) -> None:
    facts = look(oriented(orientation, kind, 320, 200))
    assert facts.orientation == orientation
    assert (facts.width, facts.height) == ((200, 320) if orientation >= 5 else (320, 200))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_turns_by_its_own_boxes(orientation: int) -> None:
    facts = look(oriented(orientation, "AVIF", 320, 200))  # Pillow writes irot and imir from the EXIF orientation
    assert (facts.width, facts.height) == ((200, 320) if orientation >= 5 else (320, 200))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_counts_frames_and_holds_the_limits(kind: str) -> None:
    data = animated(kind, frames=7)
    assert look(data).frames == 7
    with pytest.raises(TooManyFrames):
        look(data, LIMITS.model_copy(update={"max_frames": 6}))
    with pytest.raises(TooManyPixels):
        look(data, LIMITS.model_copy(update={"max_pixels": 64 * 48 * 7 - 1}))
    assert look(data, LIMITS.model_copy(update={"max_pixels": 64 * 48 * 7})).frames == 7


def test_a_gif_too_long_for_the_probe_is_counted_later() -> None:
    one = encoded(photo(64, 48), "GIF")
    head, block = one[: 13 + 3 * 256], one[13 + 3 * 256 : -1]
    frames = (5 << 20) // len(block)
    data = head + block * frames + b";"
    wide = Limits(max_frames=frames, max_pixels=64 * 48 * frames)
    facts = look(data, wide)
    assert facts.frames is None
    assert count(io.BytesIO(data), facts, size=len(data), limits=wide).frames == frames
    with pytest.raises(TooManyFrames):
        count(io.BytesIO(data), facts, size=len(data), limits=LIMITS)
    cut = data[: -len(block) // 2]
    with pytest.raises(BadImage):
        count(io.BytesIO(cut), facts, size=len(cut), limits=wide)


def test_what_is_known_is_not_counted_again() -> None:
    facts = ImageFacts("image/png", 1, 1, frames=1)
    assert count(io.BytesIO(b""), facts, size=0, limits=LIMITS) is facts


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"\x08\xf2\xa6\xb6" + bytes(100),  # a libvips file
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"BM" + bytes(60),
        b"RIFF\0\0\0\0WAVE",
        b"\xff\x0a" + bytes(60),  # JPEG XL
        bytes(100),
    ],
)
def test_refuses_other_types(data: bytes) -> None:
    assert sniff(data[:32]) is None
    with pytest.raises(UnsupportedType):
        look(data)


def test_the_first_bytes_are_enough_to_sniff() -> None:
    for kind, media_type in MEDIA_TYPES.items():
        assert sniff(encoded(photo(), kind)[:32]) == media_type


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_every_cut_is_refused_or_read_the_same(kind: str) -> None:
    """A header that is cut short is an error, never another picture."""
    data = encoded(photo(64, 48), kind)
    whole = look(data)
    for end in [*range(min(700, len(data))), *range(700, len(data), len(data) // 16 + 1)]:
        try:
            assert look(data[:end]) == whole
        except Rejected:
            continue


@pytest.mark.parametrize("kind", MEDIA_TYPES)
def test_flipped_bits_end_in_an_error_of_ours(kind: str) -> None:
    for data in (oriented(6, kind, 64, 48), animated(kind) if kind != "JPEG" else encoded(photo(), kind)):
        for at in range(min(1200, len(data))):
            for mask in (0xFF, 0x80, 0x01):
                flipped = bytearray(data)
                flipped[at] ^= mask
                try:
                    look(bytes(flipped))
                except Rejected:
                    continue


def test_a_tiff_that_chains_to_itself_is_refused() -> None:
    directory = struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 10, 257, 4, 1, 10, 8)
    with pytest.raises(BadImage, match="comes back"):
        look(b"II*\0" + struct.pack("<I", 8) + directory)


def test_every_page_of_a_tiff_counts() -> None:
    first, second = photo(10, 10), photo(400, 400)
    data = encoded(first, "TIFF", save_all=True, append_images=[second])
    assert look(data).frames == 2
    with pytest.raises(TooManyPixels):
        look(data, Limits(max_pixels=160_099))
    assert look(data, Limits(max_pixels=160_100)).width == 10


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    data = bytearray(encoded(photo(64, 48), "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)
    facts = look(bytes(data))
    assert (facts.width, facts.height) == (64, 48)


def test_a_webp_whose_canvas_lies_is_refused() -> None:
    data = bytearray(encoded(photo(64, 48, "RGBA"), "WEBP"))
    assert data[12:16] == b"VP8X"
    data[24:27] = b"\x0f\0\0"
    with pytest.raises(BadImage):
        look(bytes(data))


def test_a_png_header_must_be_whole() -> None:
    data = bytearray(encoded(photo(), "PNG"))
    data[19] ^= 1
    with pytest.raises(BadImage):
        look(bytes(data))


def test_bytes_after_the_size_do_not_exist() -> None:
    data = encoded(photo(), "JPEG")
    with pytest.raises(BadImage):
        probe(io.BytesIO(data), size=20, limits=LIMITS)


def test_a_bomb_is_refused_by_its_header() -> None:
    huge = Image.new("1", (20_000, 20_000))
    with pytest.raises(TooManyPixels):
        look(encoded(huge, "PNG"))


def test_limits_are_over_all_frames_when_counted() -> None:
    facts = replace(look(animated("GIF")), frames=None)
    data = animated("GIF")
    with pytest.raises(TooManyPixels):
        count(io.BytesIO(data), facts, size=len(data), limits=Limits(max_pixels=64 * 48 * 4))
