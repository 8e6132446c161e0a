"""Reads the header of a picture, wherever in the file its pieces lie, within a budget.

A container is walked by its own lengths: what is skipped is never read, so a small picture in a file of many GiB costs
what the small picture costs. Every byte comes from inside `size`, whatever lengths the file claims. What is touched is
counted: a jump costs at least 64 bytes, a look at what is at hand 16, and reading on comes in windows, so that the
budget bounds time as well.
"""

from __future__ import annotations

from typing import BinaryIO

from core.errors import BadImage

BUDGET = 4 << 20
LOOK = 16
JUMP = 64
NEAR = 1 << 10
WINDOW = 16 << 10


class BudgetSpent(BadImage):
    """The header is longer than a probe may read."""


class Header:
    """Random access to `file[:size]`. `budget=None`: the whole file may be read, still one window at a time."""

    def __init__(self, file: BinaryIO, size: int, budget: int | None = BUDGET) -> None:
        self.size = size
        self._file = file
        self._left = budget
        self._window = b""
        self._start = 0

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`.

        Raises:
            BadImage: the file ends before.
            BudgetSpent: too much of the file was read already.
        """
        if offset < 0 or offset + length > self.size:
            raise BadImage("the file ends in the middle of a header")
        self._spend(LOOK)
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._window):
            self._load(offset, length)
            begin = 0
        return self._window[begin : begin + length]

    def window(self, offset: int) -> bytes:
        """Whatever is at hand from `offset` on, at least one byte: for loops that read on and on."""
        self.read(offset, 1)
        return self._window[offset - self._start :]

    def number(self, offset: int, length: int, order: str = "big") -> int:
        return int.from_bytes(self.read(offset, length), "little" if order == "little" else "big")

    def _load(self, offset: int, length: int) -> None:
        reads_on = self._start <= offset <= self._start + len(self._window) + NEAR
        wanted = min(max(length, WINDOW if reads_on else JUMP), self.size - offset)
        self._spend(max(wanted, JUMP))
        self._file.seek(offset)
        self._window = self._file.read(wanted)
        self._start = offset
        if len(self._window) < length:
            raise BadImage("the file is shorter than it was said to be")

    def _spend(self, cost: int) -> None:
        if self._left is not None:
            self._left -= cost
            if self._left < 0:
                raise BudgetSpent(f"the header of the picture is longer than {BUDGET >> 20} MiB")
