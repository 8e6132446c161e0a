"""Going through the objects of a store, as a listing gives them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from storage.interface import Stored

BATCH = 500
REACH: Final = 1 << 40
"""No database is so many generations behind: such a key is not ours, and would use up the sequence."""


def batches(objects: Iterator[Stored], size: int) -> Iterator[list[Stored]]:
    while batch := list(islice(objects, size)):
        yield batch
