"""From pixels to a file. All metadata stays behind: no EXIF, no GPS, no comments, no colour profile (it is sRGB).

Effort is set for each format and never left to an encoder's default. For AVIF the default costs eight times the CPU of
effort 2 and saves a tenth of the bytes; for WebP it costs twice as much and saves a thirtieth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import BadImage, Unavailable
from imaging.engine import reason, vips

WHITE = [255, 255, 255]
BUFFER = 1 << 18


@dataclass(frozen=True)
class Encoder:
    saver: str
    options: Mapping[str, Any]
    alpha: bool = True


ENCODERS: Mapping[str, Encoder] = {
    "jpg": Encoder("jpegsave_target", {"optimize_coding": True}, alpha=False),
    "png": Encoder("pngsave_target", {"compression": 6, "filter": "all"}),
    "webp": Encoder("webpsave_target", {"effort": 2}),
    "avif": Encoder("heifsave_target", {"compression": "av1", "effort": 2}),
    "gif": Encoder("gifsave_target", {"effort": 4}),
}


class Sink:
    """Writes to a file what an encoder gives, hashing on the way. `failure` is what the file system said."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.failure: OSError | None = None
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    def write(self, chunk: Any) -> int:
        try:
            self._file.write(chunk)
        except OSError as error:  # it must not pass through the encoder's C code
            self.failure = error
            return -1
        self._hash.update(chunk)
        self.size += len(chunk)
        return len(chunk)


def encode(picture: Any, path: Path, name: str, quality: int | None) -> Sink:
    """Write `picture` to `path` in the format `name`.

    Raises:
        BadImage: the encoder cannot.
        Unavailable: the file cannot be written now.
    """
    pyvips = vips()
    encoder = ENCODERS[name]
    options = dict(encoder.options) if quality is None else {**encoder.options, "Q": quality}
    if picture.hasalpha() and not encoder.alpha:
        picture = picture.flatten(background=WHITE)
    try:
        with path.open("wb", buffering=BUFFER) as file:
            sink = Sink(file)
            target = pyvips.TargetCustom()
            target.on_write(sink.write)
            try:
                getattr(picture, encoder.saver)(target, keep="none", **options)
            except pyvips.Error as error:
                if sink.failure is None:
                    raise BadImage(f"the variant cannot be encoded as {name}: {reason(error)}") from None
                raise sink.failure from None
    except OSError as error:
        raise Unavailable(f"the variant cannot be written: {error.strerror}") from None
    return sink
