"""`/assets/{path}/-/{selectors}`: where the path ends and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from core.errors import NotFound
from metadata.paths import AssetPath

Form = Literal["link", "info", "content", "download"]
FORMS = ("link", "info", "content", "download")


@dataclass(frozen=True, slots=True)
class Address:
    path: AssetPath
    entry: int | None
    """None: the newest."""
    form: Form | None
    """None: the address names no form."""


def parse(raw: str) -> Address:
    """`raw` is what follows `/assets` in the request line, percent-encoded as it came.

    Raises:
        BadPath: the path is not one of ours.
        NotFound: the selectors mean nothing.
    """
    path, separator, selectors = raw.partition("/-/")
    if not separator:
        return Address(AssetPath.parse(path), None, None)
    entry, form = _selectors(selectors.split("/"))
    return Address(AssetPath.parse(path), entry, form)


def _selectors(parts: list[str]) -> tuple[int | None, Form | None]:
    entry = None
    if parts[0] == "entry" and len(parts) > 1 and parts[1].isascii() and parts[1].isdigit() and len(parts[1]) <= 9:
        entry = int(parts[1])
        parts = parts[2:]
    if not parts and entry is not None:
        return entry, None
    if len(parts) == 1 and parts[0] in FORMS:
        return entry, cast("Form", parts[0])
    raise NotFound(f"after /-/ comes entry/NUMBER, one of {', '.join(FORMS)}, or both in this order")
