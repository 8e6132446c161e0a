"""The answer to one request, sent step by step: each step ends where the client has to read first, or others have their
turn.

Nothing in here waits. The thread that drives the steps (`app/serving.py`) goes back to the worker where one ends, and
another thread drives on when the client has read.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

from gunicorn.http.wsgi import FileWrapper, Response

from app.client import ClientSocket

PIECE = 1 << 18
"""Bytes of a file that are sent between two looks at the client."""
TURN_BYTES = 1 << 20
"""What a client that reads at any speed is sent before others have their turn."""


class Answer(Response):  # type: ignore[misc]  # gunicorn has no types
    sock: ClientSocket
    _left_of_turn = TURN_BYTES

    def send_headers(self) -> None:
        """Send the headers; where the length is known the body follows at once, and both leave together."""
        if not self.headers_sent and self.response_length is not None:
            self.sock.hold_next()
        super().send_headers()

    def steps(self, blocks: Any) -> Iterator[None]:
        """Send `blocks` and close them, also when the steps are not driven to their end."""
        try:
            file = _file_of(blocks)
            if file is None or not (yield from self._send_file(file)):
                for block in blocks:
                    self.write(block)
                    yield from self._sent()
                    if self._ends_turn(len(block)):
                        yield
            self.close()
            self.sock.flush()
            yield from self._sent()
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def _sent(self) -> Iterator[None]:
        while not self.sock.push():
            yield

    def _send_file(self, file: int) -> Generator[None, None, bool]:
        """Send the file from where it stands, as long as the answer says. Returns whether the kernel can send it."""
        offset = os.lseek(file, 0, os.SEEK_CUR)
        left = self.response_length
        assert left is not None
        self.send_headers()
        self.sock.flush()
        yield from self._sent()
        while left:
            piece = min(left, PIECE)
            try:
                sent = self.sock.send_piece(file, offset, piece)
            except NotImplementedError:
                return False
            offset, left = offset + sent, left - sent
            if sent < piece or self._ends_turn(sent):
                yield
        return True

    def _ends_turn(self, sent: int) -> bool:
        self._left_of_turn -= sent
        if self._left_of_turn > 0:
            return False
        self._left_of_turn = TURN_BYTES
        return True


def _file_of(blocks: Any) -> int | None:
    """Return the descriptor of the real file behind the blocks; None: there is none."""
    if not isinstance(blocks, FileWrapper):
        return None
    try:
        file: int = blocks.filelike.fileno()
        os.lseek(file, 0, os.SEEK_CUR)
    except (AttributeError, OSError):
        return None
    return file
