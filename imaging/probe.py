"""What a file is, by its own bytes, before anything decodes it.

`probe` reads headers only: at most 4 MiB of the file, whatever its size, and no image library. `count` reads on where a
header cannot tell how many frames there are. Both hold the limits: pixels count over all frames, and bytes as the
decoder will give them out. Some pictures are refused with any settings: no camera or program makes such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import BinaryIO

from core.errors import BadImage, DecodedTooLarge, TooManyFrames, TooManyPixels, UnsupportedType
from core.model import ImageFacts
from core.sections import Limits
from imaging.containers import avif, gif, jpeg, png, tiff, webp
from imaging.header import Header
from imaging.pixels import MAX_BITS, MAX_ROW_BYTES, MAX_SAMPLES, MAX_SIDE, MAX_TILES_BYTES, Described

UNLIMITED = Limits(max_bytes=1 << 62, max_pixels=1 << 62, max_frames=1 << 31, max_decoded_bytes=1 << 62)
"""For pictures that were accepted: settings that changed since do not make them bad ones."""

HEAD = 64
"""So many first bytes are enough for `sniff`; 32 are for every usual file."""

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0\x08\0\0\0", "image/tiff"),
    (b"MM\0+\0\x08\0\0", "image/tiff"),
)

CONTAINERS: Mapping[str, Callable[[Header, Limits], Described]] = {
    "image/jpeg": jpeg.look,
    "image/png": png.look,
    "image/gif": gif.look,
    "image/tiff": tiff.look,
    "image/webp": webp.look,
    "image/avif": avif.look,
}


def sniff(head: bytes) -> str | None:
    """The media type of a file that begins so, or None where it is none of ours. HEIC is not AVIF."""
    for signature, media_type in SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "image/avif"
    return None


def probe(file: BinaryIO, *, size: int, limits: Limits) -> ImageFacts:
    """The facts of the picture in `file[:size]`, from its headers. The file's position is not kept.

    Raises:
        UnsupportedType: not one of the accepted formats.
        BadImage: its headers make no sense, end too early, or are longer than 4 MiB.
        TooManyPixels, TooManyFrames, DecodedTooLarge: over the limits.
    """
    return describe(file, size=size, limits=limits).facts


def describe(file: BinaryIO, *, size: int, limits: Limits) -> Described:
    """Return what `probe` does, with what the decoder will give out."""
    return _look(Header(file, size), limits)


def count(file: BinaryIO, facts: ImageFacts, *, size: int, limits: Limits) -> ImageFacts:
    """`facts` with the number of frames, which may take a walk through the whole file. Memory is bounded.

    Raises:
        BadImage: the file ends in the middle of a frame.
        TooManyPixels, TooManyFrames, DecodedTooLarge: over the limits.
    """
    if facts.frames is not None:
        return facts
    counted = _look(Header(file, size, budget=None), limits)
    return replace(counted.facts, orientation=facts.orientation)


def _look(header: Header, limits: Limits) -> Described:
    media_type = sniff(header.read(0, min(HEAD, header.size)))
    if media_type is None:
        raise UnsupportedType("the file is none of JPEG, PNG, WebP, GIF, TIFF, AVIF")
    described = CONTAINERS[media_type](header, limits)
    _check(described.facts, limits)
    _check_pixels(described, limits)
    return described


def _check(facts: ImageFacts, limits: Limits) -> None:
    if facts.width < 1 or facts.height < 1:
        raise BadImage(f"the picture has no area: {facts.width} x {facts.height}")
    if max(facts.width, facts.height) > MAX_SIDE:
        raise TooManyPixels(f"the picture is {facts.width} x {facts.height}, at most {MAX_SIDE} are accepted on a side")
    frames = facts.frames or 1
    if frames > limits.max_frames:
        raise TooManyFrames(f"the picture has more than {limits.max_frames} frames (limits.max_frames)")
    pixels = facts.width * facts.height * frames
    # Pages of a TIFF differ in size; its container summed them up and checked the sum itself.
    if facts.media_type != "image/tiff" and pixels > limits.max_pixels:
        raise TooManyPixels(
            f"the picture has {pixels} pixels over all frames, at most {limits.max_pixels} are accepted "
            "(limits.max_pixels)"
        )


def _check_pixels(described: Described, limits: Limits) -> None:
    samples, bits = described.pixels.samples, described.pixels.bits
    if not (1 <= samples <= MAX_SAMPLES and 1 <= bits <= MAX_BITS):
        raise BadImage(
            f"the picture has {samples} samples of {bits} bits in a pixel: 1 to {MAX_SAMPLES} of at most {MAX_BITS} "
            "bits are accepted"
        )
    if described.row_bytes > MAX_ROW_BYTES:
        raise DecodedTooLarge(
            f"a row of the picture is {described.row_bytes} bytes once it is decoded, at most {MAX_ROW_BYTES} are "
            "accepted"
        )
    if described.tiles_bytes > MAX_TILES_BYTES:
        raise DecodedTooLarge(
            f"two rows of the picture's tiles are {described.tiles_bytes} bytes once they are decoded, at most "
            f"{MAX_TILES_BYTES} are accepted"
        )
    if described.decoded_bytes > limits.max_decoded_bytes:
        raise DecodedTooLarge(
            f"the picture is {described.decoded_bytes} bytes once it is decoded, at most {limits.max_decoded_bytes:d} "
            "are accepted (limits.max_decoded_bytes)"
        )
