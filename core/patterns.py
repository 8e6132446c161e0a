"""Path patterns of the settings: `[[paths]]` and `[[placement]]`."""

from __future__ import annotations

import re
import unicodedata


def path_pattern(match: str) -> re.Pattern[str]:
    """`*` is one segment, or part of one; `**` any number of them, also none: `/catalog/**` is `/catalog` and all that
    lies below it. Paths are normalised, and so are patterns."""
    parts = []
    for segment in unicodedata.normalize("NFC", match).strip("/").split("/"):
        if segment == "**":
            parts.append("(?:/[^/]+)*")
        else:
            parts.append("/" + "[^/]*".join(re.escape(piece) for piece in segment.split("*")))
    return re.compile("".join(parts))
