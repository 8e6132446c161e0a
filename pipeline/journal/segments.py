"""The segments that one store holds: listed, added, read, removed.

Guarantees: two writers never overwrite each other, because a number is taken by a put that only creates. What `append`
has returned from is in a segment that nothing covers: a number that a merger freed in the meantime is given up again.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import BinaryIO, Final

from core.errors import AlreadyExists, Corrupt, Unavailable
from core.failpoints import failpoint
from pipeline.journal.keys import Segment, parsed, uncovered
from storage.interface import ObjectStore, Span
from storage.object_keys import CATALOGUE
from storage.throttle import UNTHROTTLED, Throttle

MEDIA_TYPE: Final = "application/x-ndjson"
TRAILER_BYTES: Final = 200
MAX_LINE: Final = 8 << 20
PAUSES: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)
"""Seconds before each try to get a number."""
END: Final = "end"


@dataclass(frozen=True, slots=True)
class Trailer:
    """The last line of every segment."""

    lines: int
    highest: int
    """Of the versions in this segment and in those before it."""

    @property
    def text(self) -> str:
        return json.dumps({"v": 1, "kind": END, "lines": self.lines, "highest": self.highest})

    @classmethod
    def parse(cls, text: str) -> Trailer:
        """
        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        said = json.loads(text)
        if said["kind"] != END:
            raise ValueError("not a trailer")
        return cls(int(said["lines"]), int(said["highest"]))


class Draft:
    """A segment in the making, in a temporary file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lines = self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> bytes:
        return self._digest.digest()

    def write(self, line: str) -> None:
        data = line.encode() + b"\n"
        self.file.write(data)
        self._digest.update(data)
        self.size += len(data)
        self.lines += 1

    def copy(self, body: BinaryIO) -> None:
        """The bytes of another segment, as they are."""
        while data := body.read(1 << 20):
            self.file.write(data)
            self._digest.update(data)
            self.size += len(data)

    def end(self, highest: int) -> None:
        self.write(Trailer(self.lines, highest).text)


@contextmanager
def draft(directory: Path) -> Iterator[Draft]:
    """
    Raises:
        Unavailable: no room for it on this host.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            yield Draft(file)
    except OSError as error:
        raise Unavailable(f"no segment can be put together in {directory}: {error.strerror}") from None


def listed(store: ObjectStore) -> list[Segment]:
    """All that are there, also what another one covers."""
    return [segment for found in store.scan(CATALOGUE) if (segment := parsed(found)) is not None]


def current(store: ObjectStore) -> list[Segment]:
    """Those that count, in the order of their numbers."""
    return uncovered(listed(store))


def append(store: ObjectStore, made: Draft, throttle: Throttle = UNTHROTTLED) -> Segment:
    """Put it under the next free number. Another one that comes with the same number takes the next: also where the
    service lists late, and goes on naming a number as free that is taken.

    Raises:
        Unavailable: every number that was tried was taken, or merged away again.
    """
    tried = 0
    for pause in PAUSES:
        sleep(pause * random.uniform(0.5, 1))
        number = tried = max([tried, *(one.last for one in listed(store))]) + 1
        segment = Segment(number, number, made.size)
        failpoint("catalogue.before-put", segment.key)
        try:
            put(store, segment, made, throttle)
        except AlreadyExists:
            continue
        failpoint("catalogue.after-put", segment.key)
        if not any(one.covers(segment) for one in listed(store)):
            return segment
    raise Unavailable(f"{store.name} names numbers of the catalogue as free that are taken: up to {tried}")


def put(store: ObjectStore, segment: Segment, made: Draft, throttle: Throttle = UNTHROTTLED) -> None:
    """
    Raises:
        AlreadyExists: the number is taken.
    """
    made.file.seek(0)
    store.put(segment.key, throttle.body(made.file), size=made.size, sha256=made.sha256, media_type=MEDIA_TYPE)


def trailer(store: ObjectStore, segment: Segment) -> Trailer:
    """
    Raises:
        Corrupt: the segment does not end in one.
    """
    with store.open(segment.key, Span(max(segment.size - TRAILER_BYTES, 0))) as body:
        last = b"".join(iter(lambda: body.read(TRAILER_BYTES), b"")).rstrip(b"\n").rpartition(b"\n")[2]
    return _trailer(store, segment, last)


def lines(store: ObjectStore, segment: Segment) -> Iterator[str]:
    """Its lines without the trailer.

    Raises:
        Corrupt: after the last line that can be read, where lines are missing behind it.
    """
    held: bytes | None = None
    count = 0
    with store.open(segment.key) as body:
        for line in _split(body, segment.key):
            if held is not None:
                count += 1
                yield held.decode("utf-8", "replace")
            held = line
    if _trailer(store, segment, held or b"").lines != count:
        raise Corrupt(f"{segment.key} in {store.name} lacks lines")


def _split(body: BinaryIO, key: str) -> Iterator[bytes]:
    rest = b""
    while block := body.read(1 << 20):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
        if len(rest) > MAX_LINE:
            raise Corrupt(f"{key} has a line of more than {MAX_LINE} bytes")
    if rest:
        yield rest


def _trailer(store: ObjectStore, segment: Segment, line: bytes) -> Trailer:
    try:
        return Trailer.parse(line.decode())
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"{segment.key} in {store.name} is cut short") from None
