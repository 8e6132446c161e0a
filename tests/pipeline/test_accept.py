"""Accepting as a use case, on a real staging; nothing else is there."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadRequest, DigestMismatch, IncompleteBody, TooLarge, UnsupportedType
from core.model import Details
from core.sections import Limits
from metadata.paths import AssetPath
from pipeline.uploads.accept import accept, fingerprint, keyed_asset_id
from pipeline.uploads.hashing import LARGE, Sha256
from tests.pictures import encoded, photo
from tests.pipeline.line import Body, Line

JPEG = encoded(photo(), "JPEG")
NOWHERE = "postgresql://nobody:nothing@127.0.0.1:1/none"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Line]:
    """A line whose database is away."""
    made = Line(tmp_path, NOWHERE, limits=Limits(max_bytes=100_000))
    yield made
    made.close()


def nothing_is_staged(line: Line) -> bool:
    root = line.settings.staging_path
    return not any(os.listdir(root / folder) for folder in ("incoming", "accepted", "quarantine", "trash"))


@dataclass(frozen=True)
class Counted(Body):
    """Tells how many bytes were asked for."""

    taken: list[int] = field(default_factory=list)

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 1000):
            self.taken.append(start)
            yield self.data[start : start + 1000]


class Unannounced(Counted):
    @property
    def expected(self) -> None:  # type: ignore[override]
        return None


PATH = AssetPath.from_text("/a")


def test_what_is_announced_too_large_is_never_read(alone: Line) -> None:
    offer = Counted(JPEG + bytes(200_000))
    with pytest.raises(TooLarge):
        accept(alone.services, offer, PATH, None)
    assert offer.taken == []


def test_what_turns_out_too_large_is_read_no_further(alone: Line) -> None:
    offer = Unannounced(JPEG + bytes(1_000_000))
    with pytest.raises(TooLarge):
        accept(alone.services, offer, PATH, None)
    assert len(offer.taken) == 101
    assert nothing_is_staged(alone)


def test_a_foreign_type_is_seen_in_the_first_piece(alone: Line) -> None:
    offer = Unannounced(b"%PDF" + bytes(50_000))
    with pytest.raises(UnsupportedType):
        accept(alone.services, offer, PATH, None)
    assert len(offer.taken) == 1
    assert nothing_is_staged(alone)


def test_an_offer_that_breaks_leaves_nothing(alone: Line) -> None:
    class Breaking(Body):
        def pieces(self) -> Iterator[bytes]:
            yield self.data[:2000]
            raise IncompleteBody("cut")

    with pytest.raises(IncompleteBody):
        accept(alone.services, Breaking(JPEG), PATH, None)
    with pytest.raises(DigestMismatch):
        accept(alone.services, Body(JPEG, digests=[bytes(32)]), PATH, None)
    assert nothing_is_staged(alone)


def test_the_manifest_says_what_was_accepted(alone: Line) -> None:
    details = Details("alt", {"k": "v"}, ("t",))
    accepted = accept(alone.services, Body(JPEG, details), PATH, None)
    entry = alone.services.staging.look(accepted.manifest.id)
    assert entry is not None
    assert entry.manifest == accepted.manifest
    assert entry.manifest.sha256 == hashlib.sha256(JPEG).digest()
    assert entry.manifest.fingerprint == fingerprint("/a", entry.manifest.sha256, details)


def test_a_fingerprint_does_not_depend_on_order() -> None:
    one = fingerprint("/a", bytes(32), Details(None, {"a": "1", "b": "2"}, ("x", "y")))
    same = fingerprint("/a", bytes(32), Details(None, {"b": "2", "a": "1"}, ("y", "x")))
    others = [
        fingerprint("/b", bytes(32), Details(None, {"a": "1", "b": "2"}, ("x", "y"))),
        fingerprint("/a", bytes(31) + b"\1", Details(None, {"a": "1", "b": "2"}, ("x", "y"))),
        fingerprint("/a", bytes(32), Details("", {"a": "1", "b": "2"}, ("x", "y"))),
        fingerprint("/a", bytes(32), Details(None, {"a": "1"}, ("x", "y"))),
        fingerprint("/a", bytes(32), Details(None, {"a": "1", "b": "2"}, ("x",))),
    ]
    assert one == same
    assert len({one, *others}) == 6


@given(st.text(max_size=300))
def test_a_key_is_an_asset_or_refused(key: str) -> None:
    if 1 <= len(key) <= 255 and key.isascii() and key.isprintable():
        assert keyed_asset_id(key) == keyed_asset_id(key)
        assert len(key) == 255 or keyed_asset_id(key) != keyed_asset_id(key + "#")
    else:
        with pytest.raises(BadRequest):
            keyed_asset_id(key)


def test_pieces_of_any_size_hash_to_the_whole() -> None:
    chance = random.Random(7)
    data = chance.randbytes(2 * LARGE)
    buffers, used, start = (bytearray(1 << 20), bytearray(1 << 20)), 0, 0
    with Sha256() as hashed:
        while start < len(data):
            size = chance.randint(1, 1 << 20)
            piece = data[start : start + size]
            buffer = buffers[used % 2]  # as the raw body does: two buffers in turn
            buffer[: len(piece)] = piece
            hashed.update(memoryview(buffer)[: len(piece)])
            start, used = start + size, used + 1
        assert hashed.digest() == hashlib.sha256(data).digest()
