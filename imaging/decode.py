"""From the bytes of a picture to pixels: 8 bit, sRGB or grey, upright, with or without alpha.

The file is mapped, and only as far as the body goes: what follows it in a staged entry does not exist here. It is read
once before, because a disk that fails under a map kills the process, as if the picture had done it.
The loader is the one for the sniffed type; nothing is guessed. Broken pictures are errors, also when a decoder would
make up the missing part.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import BadImage, Corrupt, StoreUnavailable
from core.failpoints import failpoint
from core.model import ImageFacts
from imaging.containers.exif import turned
from imaging.engine import reason, vips
from imaging.operations.geometry import Size
from imaging.pixels import Described
from imaging.probe import UNLIMITED, describe

LOADERS: Mapping[str, str] = {
    "image/jpeg": "jpegload_source",
    "image/png": "pngload_source",
    "image/gif": "gifload_source",
    "image/tiff": "tiffload_source",
    "image/webp": "webpload_source",
    "image/avif": "heifload_source",
}
READ_BYTES = 1 << 20
JPEG_SHRINKS = (8, 4, 2)
SPARE = 2
"""Shrinking while loading leaves at least so many times the wanted size, because it is cruder than a resize."""
LEAST = 256
"""A JPEG is not shrunk below this while loading: it ends on whole pixels, and in a small picture that bends it."""

SAMPLE_BYTES: Mapping[str, int] = {
    "uchar": 1,
    "char": 1,
    "ushort": 2,
    "short": 2,
    "uint": 4,
    "int": 4,
    "float": 4,
    "double": 8,
    "complex": 8,
    "dpcomplex": 16,
}
"""Of libvips' formats of a band."""
LARGER = "the picture is larger than its header said"

TIMING = frozenset({"delay", "loop", "icc-profile-data"})
"""What an animation needs beside its pixels; the profile goes when its frames are converted."""

UPRIGHT: Mapping[int, tuple[str, ...]] = {
    2: ("fliphor",),
    3: ("rot180",),
    4: ("flipver",),
    5: ("rot90", "fliphor"),
    6: ("rot90",),
    7: ("rot270", "fliphor"),
    8: ("rot270",),
}


@dataclass(frozen=True)
class Original:
    """The encoded picture, and what its header says. Its size is as displayed."""

    data: mmap.mmap
    described: Described

    @classmethod
    def open(cls, fd: int, size: int) -> Original:
        """
        Raises:
            BadImage: the header makes no sense.
            Corrupt: the file is shorter than `size`.
            StoreUnavailable: its disk cannot read it.
        """
        if size < 1:
            raise BadImage("the file is empty")
        _read_once(fd, size)
        try:
            data = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        except (ValueError, OSError) as error:
            raise Corrupt(f"the file cannot be mapped: {error}") from None
        return cls(data, describe(data, size=size, limits=UNLIMITED))  # type: ignore[arg-type]  # reads like a file

    @property
    def facts(self) -> ImageFacts:
        return self.described.facts

    @property
    def size(self) -> Size:
        return self.facts.width, self.facts.height

    def still(self, size: Size) -> Any:
        """The first frame, scaled to `size`, in memory."""
        sideways = turned(self.facts.orientation)
        stored = self.size[::-1] if sideways else self.size
        wanted = size[::-1] if sideways else size
        picture = self._load(**_shrink_on_load(self.facts.media_type, stored, wanted))
        if picture.width > stored[0] or picture.height > stored[1]:
            raise BadImage(LARGER)
        picture = _bare(_in_memory(scaled(picture, wanted)))
        for step in UPRIGHT.get(self.facts.orientation, ()):
            picture = getattr(picture, step)()
        return _in_memory(picture) if self.facts.orientation > 1 else picture

    def frames(self) -> list[Any]:
        """All frames of an animation, each as it shows, at their own size."""
        strip = self._load(n=-1)
        high = strip.get("page-height") if strip.get_typeof("page-height") else strip.height
        strip = _bare(_in_memory(strip), keep=TIMING)
        return [strip.crop(0, top, strip.width, high) for top in range(0, strip.height - high + 1, high)]

    def _load(self, **options: Any) -> Any:
        pyvips = vips()
        source = pyvips.Source.new_from_memory(self.data)
        loader = getattr(pyvips.Image, LOADERS[self.facts.media_type])
        try:
            picture = loader(source, access="sequential", fail_on="error", **options)
        except pyvips.Error as error:
            raise BadImage(f"the picture cannot be decoded: {reason(error)}") from None
        if picture.width * picture.height * picture.bands * SAMPLE_BYTES[picture.format] > self.described.decoded_bytes:
            raise BadImage(LARGER)
        return _shown(picture)


def _read_once(fd: int, size: int) -> None:
    block, position = bytearray(READ_BYTES), 0
    try:
        failpoint("decode.before-read")
        while position < size:
            count = os.preadv(fd, [memoryview(block)[: size - position]], position)
            if not count:
                raise Corrupt(f"the file ends after {position} of {size} bytes")
            position += count
    except OSError as error:
        raise StoreUnavailable(f"the disk cannot read the picture: {error.strerror or error}") from error


def scaled(picture: Any, size: Size) -> Any:
    """The picture at exactly `size`, 8 bit, sRGB or grey. Colour profiles are honoured and CMYK is converted."""
    pyvips = vips()
    profiled = bool(picture.get_typeof("icc-profile-data")) or picture.interpretation == "cmyk"
    options = {"output_profile": "srgb"} if profiled else {}  # going through profiles costs more than all the rest
    try:
        result = picture.thumbnail_image(size[0], height=size[1], size="force", no_rotate=True, **options)
        space = "b-w" if result.interpretation in {"b-w", "grey16"} else "srgb"
        if result.interpretation != space or result.format != "uchar":
            result = result.colourspace(space)
        return _shown(result)
    except pyvips.Error as error:
        raise BadImage(f"the picture cannot be scaled: {reason(error)}") from None


def _shown(picture: Any) -> Any:
    """Without bands that no variant shows; the fifth is the alpha of four inks."""
    known = 5 if picture.interpretation == "cmyk" else 4
    return picture if picture.bands <= known else picture[:3]


def _bare(picture: Any, keep: frozenset[str] = frozenset()) -> Any:
    """Without metadata: some encoders act on an orientation that was applied already, told to keep it or not."""
    picture = picture.copy()
    for name in picture.get_fields():
        if name not in keep:
            picture.remove(name)  # those that every picture has, such as its width, stay
    return picture


def _in_memory(picture: Any) -> Any:
    """Decoding happens here, and so do its errors."""
    pyvips = vips()
    try:
        return picture.copy_memory()
    except pyvips.Error as error:
        raise BadImage(f"the picture cannot be decoded: {reason(error)}") from None


def _shrink_on_load(media_type: str, stored: Size, wanted: Size) -> dict[str, Any]:
    factor = min(stored[0] / wanted[0], stored[1] / wanted[1])
    if media_type == "image/jpeg":
        most = min(factor / SPARE, min(stored) / LEAST)
        return {"shrink": next((shrink for shrink in JPEG_SHRINKS if most >= shrink), 1)}
    if media_type == "image/webp" and factor > SPARE:
        return {"scale": SPARE / factor}
    return {}
