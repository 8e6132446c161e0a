"""What a variant is: the parameters a client may give, and the recipe they come to for one source.

A recipe holds resolved values only, so requests with the same result share one variant, whatever words they used.
Whether parameters are good depends on themselves and the settings, never on a source: what `checked` let pass
resolves for every picture, so an eager profile cannot fail an upload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from core.errors import BadRequest
from core.model import ImageFacts
from core.sections import Variants
from imaging.operations import OPERATIONS
from imaging.operations.geometry import Size, capped

VERSION = 1

FORMATS: Mapping[str, str] = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
}
QUALITY = {"jpg": 80, "webp": 80, "avif": 50}
"""Default quality; the other formats have none."""
ANIMATED = {"gif", "webp"}
"""Formats that keep the frames of a source that has one of them."""
OF_MEDIA_TYPE = {media_type: name for name, media_type in FORMATS.items()}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was asked for; None was not. Each value is valid by itself."""

    w: int | None = None
    h: int | None = None
    fit: str | None = None
    format: str | None = None
    q: int | None = None
    enlarge: bool | None = None

    @classmethod
    def parse(cls, given: Mapping[str, str | int | bool]) -> Parameters:
        """
        Raises:
            BadRequest: naming the parameter that is unknown or has a bad value.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise BadRequest(f"unknown parameter {name!r} (there is: {', '.join(known)})")
        return cls(
            w=_whole(given, "w"),
            h=_whole(given, "h"),
            fit=_word(given, "fit", OPERATIONS),
            format=_word(given, "format", FORMATS),
            q=_whole(given, "q", most=100),
            enlarge=_truth(given, "enlarge"),
        )

    def override(self, other: Parameters) -> Parameters:
        """These, but what `other` gives wins."""
        merged = {}
        for field in fields(self):
            theirs = getattr(other, field.name)
            merged[field.name] = getattr(self, field.name) if theirs is None else theirs
        return Parameters(**merged)

    def checked(self, limits: Variants) -> Parameters:
        """These, good together.

        Raises:
            BadRequest: nothing is asked for, a needed side is missing, or the result would be too large.
        """
        if (self.w, self.h, self.format, self.q) == (None, None, None, None):
            raise BadRequest("a variant needs at least one of w, h, format, q")
        if OPERATIONS[self.fit or "fit"].NEEDS_BOX:
            if self.w is None or self.h is None:
                raise BadRequest(f"fit={self.fit} needs both w and h")
            if self.w * self.h > limits.max_pixels:
                raise BadRequest(f"w and h: at most {limits.max_pixels} pixels")
        for name, side in (("w", self.w), ("h", self.h)):
            if side is not None and side > limits.max_side:
                raise BadRequest(f"{name}: at most {limits.max_side}")
        return self


@dataclass(frozen=True)
class Recipe:
    """`w` and `h` are the output's pixels. `q` is None where the format has no quality. `animated`: all frames."""

    w: int
    h: int
    fit: str
    format: str
    q: int | None
    animated: bool = False

    @property
    def size(self) -> Size:
        return self.w, self.h

    @property
    def canonical(self) -> dict[str, Any]:
        """What a JSON column keeps. The version changes when equal values would no longer mean equal pixels."""
        return {"v": VERSION} | {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_canonical(cls, mapping: Mapping[str, Any]) -> Recipe:
        """
        Raises:
            BadRequest: of another version, or not a recipe.
        """
        values = dict(mapping)
        if values.pop("v", None) != VERSION or values.keys() != {field.name for field in fields(cls)}:
            raise BadRequest(f"this is not a recipe of version {VERSION}")
        return cls(**values)

    @cached_property
    def hash(self) -> bytes:
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return sha256(text.encode("ascii")).digest()

    @property
    def media_type(self) -> str:
        return FORMATS[self.format]

    @property
    def extension(self) -> str:
        return self.format


def resolve(parameters: Parameters, facts: ImageFacts, limits: Variants) -> Recipe:
    """The recipe for one source. A size that nobody gave in full (one side, or none) keeps the limits by shrinking.

    Raises:
        BadRequest: as `Parameters.checked` says; never because of the source.
    """
    parameters.checked(limits)
    source = (facts.width, facts.height)
    fit = parameters.fit or "fit"
    size = OPERATIONS[fit].size(source, parameters.w, parameters.h, enlarge=bool(parameters.enlarge))
    if fit == "fit":
        size = capped(size, max_side=limits.max_side, max_pixels=limits.max_pixels)
    elif OPERATIONS["fit"].size(source, *size, enlarge=True) == size:
        fit = "fit"  # the box has the source's aspect: nothing is cut or bent
    name = parameters.format or _format_of(facts)
    quality = parameters.q or QUALITY[name] if name in QUALITY else None
    return Recipe(*size, fit, name, quality, _is_animated(facts, name, size, limits))


def _format_of(facts: ImageFacts) -> str:
    return OF_MEDIA_TYPE.get(facts.media_type) or ("png" if facts.has_alpha else "jpg")


def _is_animated(facts: ImageFacts, name: str, size: Size, limits: Variants) -> bool:
    """All frames together keep the limit of pixels; where they cannot, the first one stands for them."""
    frames = facts.frames or 1
    both = name in ANIMATED and OF_MEDIA_TYPE.get(facts.media_type) in ANIMATED
    return both and frames > 1 and size[0] * size[1] * frames <= limits.max_pixels


def _whole(given: Mapping[str, str | int | bool], name: str, *, most: int = 1_000_000) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= most):
        raise BadRequest(f"{name}: {text[:40]!r} is not a whole number from 1 to {most}")
    return int(text)


def _word(given: Mapping[str, str | int | bool], name: str, words: Mapping[str, object]) -> str | None:
    value = given.get(name)
    if value is None or value in words:
        return value  # type: ignore[return-value]  # a key of `words` is a str
    raise BadRequest(f"{name}: {str(value)[:40]!r} is none of {', '.join(words)}")


def _truth(given: Mapping[str, str | int | bool], name: str) -> bool | None:
    value: Literal[True, False] | str | int | None = given.get(name)
    if value is None or isinstance(value, bool):
        return value
    if value in {"true", "false"}:
        return value == "true"
    raise BadRequest(f"{name}: {str(value)[:40]!r} is neither true nor false")
