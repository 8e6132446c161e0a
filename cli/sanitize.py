"""Text from elsewhere (file names, answers) on a terminal, where it must not act."""

from __future__ import annotations

import os


def printable(text: str) -> str:
    """What is not UTF-8 in a file name, and every control character, shows as an escape."""
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in decoded)
