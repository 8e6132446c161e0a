"""libvips, loaded when the first picture is rendered and set up for pictures from strangers.

Untrusted loaders are blocked, one thread renders one picture (processes are what scales), and nothing is cached: no
picture comes twice. Load it only in a process that will not fork any more; its threads would not survive a fork.
"""

from __future__ import annotations

import ctypes
import logging
import os
from functools import cache
from typing import Any

from core.errors import Misconfigured

M_MMAP_THRESHOLD = -3
KEPT_BELOW = 4 << 20

OLDEST = (8, 18, 3)
"""Older ones can overflow on scanlines that do not fit an int."""


@cache
def vips() -> Any:
    """The module `pyvips`.

    Raises:
        Misconfigured: libvips is missing or too old to meet strangers.
    """
    os.environ["VIPS_BLOCK_UNTRUSTED"] = "1"
    os.environ["VIPS_CONCURRENCY"] = "1"
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # it tells of every call, and passes on libvips' warnings
    try:
        import pyvips
    except (ImportError, OSError) as error:
        raise Misconfigured(f"libvips cannot be loaded: {error}") from None
    found = tuple(pyvips.version(part) for part in range(3))
    if found < OLDEST:
        wanted, have = (".".join(map(str, version)) for version in (OLDEST, found))
        raise Misconfigured(f"libvips {wanted} or later is needed, this is {have}")
    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)
    _return_freed_memory()
    return pyvips


def _return_freed_memory() -> None:
    """Pixels that are done with go back to the kernel at once. By default glibc learns from the first large picture to
    keep such pieces, and a process grows to a multiple of what any of its pictures needs."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BELOW)


def reason(error: Exception) -> str:
    """libvips' first sentence about a failure, for a person."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = lines[1] if len(lines) > 1 else (lines[0] if lines else "no reason given")
    return sentence.encode("ascii", "replace").decode()[:200]
