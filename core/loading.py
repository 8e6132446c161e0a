"""Loading modules at the start of a process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage meanwhile: what modules make stays, and to walk over all of it again and again is a tenth of a
    start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
