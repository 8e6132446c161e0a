"""What every object store must do. A backend's test subclasses this and gives it a `store`; nothing else is needed.

Whatever a test leaves is deleted at its end, and then nothing may be left: neither objects nor, where the backend can
tell (`residue`), unfinished ones.
"""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from core.errors import AlreadyExists, Corrupt, InvalidRange, NotFound
from storage.interface import ObjectStore, Span, Stored

MIB = 1 << 20
LARGE = 64 * MIB
MEMORY_BOUND = 36 * MIB

LEGAL_KEYS = [
    "a",
    "ab",
    "abc",
    "abcd",
    "abcde",
    "a-b",
    "a.b",
    "a/b",
    "a/bc",
    "a/b/c",
    "a0",
    "A",
    "_",
    "-",
    "...",
    "..a/.b",
    ".hidden",
    "9/8/7/6/5/4/3/2/1",
    "f" * 200,
    "f" * 201,
    "f" * 200 + "..",
    "f" * 255 + "/" + "f" * 256,
    "x/" * 255 + "xx",
    "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b.17",
]
ILLEGAL_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a\\b",
    "a b",
    "a\0b",
    "a\nb",
    "ä",
    "a%2f",
    "f" * 513,
]


def fill(store: ObjectStore, key: str, data: bytes = b"bytes") -> Stored:
    return store.put(key, io.BytesIO(data), size=len(data), sha256=sha256(data), media_type="image/png")


def read(store: ObjectStore, key: str, span: Span | None = None) -> bytes:
    with store.open(key, span) as body:
        return body.read()


def keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [found.key for found in store.scan(prefix, after=after)]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Zeros(io.RawIOBase):
    """A body of any length that takes no memory, in reads of odd sizes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        count = min(count if count >= 0 else self.left, self.left, 700_001)
        self.left -= count
        return bytes(count)


class ObjectStoreContract:
    part_size = 5 * MIB
    """Where the backend cuts large bodies, so that the tests meet both sides of it."""

    keeps_bytes_in_memory = False

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError("the backend's test gives one")

    @pytest.fixture
    def residue(self) -> Callable[[], list[str]]:
        """What a store still has beside objects: temporary files, unfinished uploads."""
        return list

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, store: ObjectStore, residue: Callable[[], list[str]]) -> Iterator[None]:
        yield
        assert residue() == []
        store.delete(keys(store))
        assert keys(store) == []

    @pytest.mark.parametrize("difference", [-1, 0, 1])
    def test_bodies_around_the_part_size_come_back(self, store: ObjectStore, difference: int) -> None:
        data = random.Random(difference).randbytes(self.part_size + difference)
        fill(store, "a/b", data)
        assert read(store, "a/b") == data

    @pytest.mark.parametrize("data", [b"", b"x"])
    def test_tiny_bodies_come_back(self, store: ObjectStore, data: bytes) -> None:
        fill(store, "tiny", data)
        assert read(store, "tiny") == data
        assert store.head("tiny").size == len(data)

    def test_put_and_head_say_what_is_stored(self, store: ObjectStore) -> None:
        put = fill(store, "a", b"four")
        for said in (put, store.head("a"), next(iter(store.scan()))):
            assert (said.key, said.size) == ("a", 4)
            assert said.sha256 in (None, sha256(b"four"))
            assert said.modified_at.utcoffset() == timedelta(0)
            assert abs(datetime.now(UTC) - said.modified_at) < timedelta(minutes=5)

    def test_put_reads_from_the_present_position(self, store: ObjectStore) -> None:
        body = io.BytesIO(b"skipped,kept")
        body.seek(8)
        store.put("a", body, size=4, sha256=sha256(b"kept"), media_type="image/png")
        assert read(store, "a") == b"kept"

    def test_a_large_stream_takes_bounded_memory(self, store: ObjectStore) -> None:
        digest = hashlib.sha256()
        for _ in range(LARGE // MIB):
            digest.update(bytes(MIB))
        tracemalloc.start()
        try:
            store.put("large", Zeros(LARGE), size=LARGE, sha256=digest.digest(), media_type="image/png")  # type: ignore[arg-type]  # a raw stream is a body
            back = hashlib.sha256()
            with store.open("large") as body:
                while block := body.read(MIB):
                    back.update(block)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert back.digest() == digest.digest()
        assert peak < MEMORY_BOUND + (LARGE if self.keeps_bytes_in_memory else 0)

    def test_every_legal_key_is_its_own_object(self, store: ObjectStore) -> None:
        for key in LEGAL_KEYS:
            fill(store, key, key.encode())
        for key in LEGAL_KEYS:
            assert read(store, key) == key.encode()

    @pytest.mark.parametrize("key", ILLEGAL_KEYS)
    def test_illegal_keys_are_refused_everywhere(self, store: ObjectStore, key: str) -> None:
        for call in (
            lambda: fill(store, key),
            lambda: read(store, key),
            lambda: store.head(key),
            lambda: store.delete([key]),
            lambda: store.url(key, ttl=timedelta(minutes=1)),
            lambda: store.copy_from(store, key),
        ):
            with pytest.raises(ValueError, match="not an object key"):
                call()

    @pytest.mark.parametrize(
        ("span", "expected"),
        [
            (Span(0), b"0123456789"),
            (Span(0, 1), b"0"),
            (Span(3, 7), b"3456"),
            (Span(9), b"9"),
            (Span(9, 10), b"9"),
            (Span(5, 1000), b"56789"),
            (Span(0, 10), b"0123456789"),
        ],
    )
    def test_spans(self, store: ObjectStore, span: Span, expected: bytes) -> None:
        fill(store, "digits", b"0123456789")
        assert read(store, "digits", span) == expected

    @pytest.mark.parametrize("span", [Span(10), Span(10, 11), Span(11), Span(-1), Span(-3, 2), Span(4, 4), Span(5, 3)])
    def test_spans_that_are_none(self, store: ObjectStore, span: Span) -> None:
        fill(store, "digits", b"0123456789")
        with pytest.raises(InvalidRange):
            read(store, "digits", span)

    def test_a_span_is_read_in_pieces_and_ends_where_it_should(self, store: ObjectStore) -> None:
        data = random.Random(1).randbytes(300_000)
        fill(store, "a", data)
        with store.open("a", Span(1000, 200_000)) as body:
            pieces = [body.read(7), body.read(99_000), body.read(), body.read(1)]
        assert b"".join(pieces) == data[1000:200_000]

    def test_an_empty_object_has_no_span(self, store: ObjectStore) -> None:
        fill(store, "empty", b"")
        with pytest.raises(InvalidRange):
            read(store, "empty", Span(0))

    def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        fill(store, "a/bc")
        for key in ("a", "a/b", "a/bcd", "zz"):
            with pytest.raises(NotFound):
                store.head(key)
            with pytest.raises(NotFound):
                read(store, key)
            with pytest.raises(NotFound):
                read(store, key, Span(0, 1))

    def test_delete_is_idempotent(self, store: ObjectStore) -> None:
        fill(store, "a")
        store.delete(["a", "never/was"])
        store.delete(["a"])
        store.delete([])
        with pytest.raises(NotFound):
            store.head("a")

    def test_delete_takes_only_what_is_named(self, store: ObjectStore) -> None:
        for key in ("a", "a/b", "a/bc", "a/b/c", "ab"):
            fill(store, key)
        store.delete(["a/b"])
        assert keys(store) == ["a", "a/b/c", "a/bc", "ab"]

    def test_delete_in_bulk(self, store: ObjectStore) -> None:
        fill(store, "stays")
        for number in range(30):
            fill(store, f"bulk/{number:04}")
        store.delete(f"bulk/{number:04}" for number in range(1500))
        assert keys(store) == ["stays"]

    def test_a_deleted_key_can_be_made_again(self, store: ObjectStore) -> None:
        fill(store, "a", b"one")
        store.delete(["a"])
        fill(store, "a", b"other")
        assert read(store, "a") == b"other"

    def test_scan_goes_in_key_order(self, store: ObjectStore) -> None:
        for key in random.Random(2).sample(LEGAL_KEYS, len(LEGAL_KEYS)):
            fill(store, key)
        assert keys(store) == sorted(LEGAL_KEYS)

    def test_scan_goes_on_after_any_key(self, store: ObjectStore) -> None:
        for key in LEGAL_KEYS:
            fill(store, key)
        for after in [*LEGAL_KEYS, "a/", "aa", "zzz", "!"]:
            assert keys(store, after=after) == [key for key in sorted(LEGAL_KEYS) if key > after]

    def test_scan_by_prefix(self, store: ObjectStore) -> None:
        for key in LEGAL_KEYS:
            fill(store, key)
        for prefix in ["a", "a/", "a/b", "a/b/", "ab", "abcd", "f" * 200, "3a7b", "3a7bd", "none", "."]:
            assert keys(store, prefix) == [key for key in sorted(LEGAL_KEYS) if key.startswith(prefix)]
            assert keys(store, prefix, "a/b") == [k for k in sorted(LEGAL_KEYS) if k.startswith(prefix) and k > "a/b"]

    def test_scan_is_lazy_and_survives_deletion(self, store: ObjectStore) -> None:
        names = [f"{number:02}" for number in range(20)]
        for name in names:
            fill(store, name)
        scan = store.scan()
        assert [found.key for found in islice(scan, 3)] == names[:3]
        store.delete(names[3:])
        assert set(keys(store)) == set(names[:3])
        assert {found.key for found in scan} <= set(names)

    @pytest.mark.parametrize("large", [False, True], ids=["small", "in-parts"])
    @pytest.mark.parametrize("fault", ["short", "long", "wrong-hash", "empty"])
    def test_a_body_that_is_not_as_promised_leaves_nothing(self, store: ObjectStore, fault: str, large: bool) -> None:
        data = random.Random(3).randbytes(2 * self.part_size + 17 if large else 1000)
        body = {"short": data[:-1], "long": data + b"!", "wrong-hash": b"?" + data[1:], "empty": b""}[fault]
        with pytest.raises(Corrupt):
            store.put("a", io.BytesIO(body), size=len(data), sha256=sha256(data), media_type="image/png")
        assert keys(store) == []
        with pytest.raises(NotFound):
            store.head("a")

    @pytest.mark.parametrize("large", [False, True], ids=["small", "in-parts"])
    def test_a_body_that_breaks_leaves_nothing(self, store: ObjectStore, large: bool) -> None:
        class Broken(Zeros):
            def read(self, count: int = -1) -> bytes:
                if not self.left:
                    raise ConnectionResetError("the source is gone")
                return super().read(count)

        size = 3 * self.part_size if large else 1000
        with pytest.raises(ConnectionResetError):  # the body's own error, not the store's
            store.put("a", Broken(size - 1), size=size, sha256=bytes(32), media_type="image/png")  # type: ignore[arg-type]  # a raw stream is a body
        assert keys(store) == []

    def test_equal_bytes_count_as_stored(self, store: ObjectStore) -> None:
        first = fill(store, "a", b"same")
        again = fill(store, "a", b"same")
        assert (again.key, again.size) == (first.key, first.size)
        assert read(store, "a") == b"same"

    @pytest.mark.parametrize("other", [b"sama", b"samesame", b""])
    def test_other_bytes_are_refused_and_change_nothing(self, store: ObjectStore, other: bytes) -> None:
        fill(store, "a", b"same")
        with pytest.raises(AlreadyExists):
            fill(store, "a", other)
        assert read(store, "a") == b"same"

    def test_large_bodies_are_created_once_too(self, store: ObjectStore) -> None:
        data = bytes(2 * self.part_size + 1)
        fill(store, "a", data)
        fill(store, "a", data)
        with pytest.raises(AlreadyExists):
            fill(store, "a", b"!" + data[1:])
        assert store.head("a").size == len(data)
        assert read(store, "a", Span(0, 1)) == b"\0"

    def test_sixteen_racing_with_equal_bytes_all_succeed(self, store: ObjectStore) -> None:
        data = random.Random(4).randbytes(100_000)
        with ThreadPoolExecutor(16) as pool:
            said = list(pool.map(lambda _: fill(store, "raced", data), range(16)))
        assert {(one.key, one.size) for one in said} == {("raced", len(data))}
        assert read(store, "raced") == data
        assert keys(store) == ["raced"]

    def test_sixteen_racing_with_different_bytes_have_one_winner(self, store: ObjectStore) -> None:
        bodies = [bytes([number]) * 1000 for number in range(16)]

        def race(body: bytes) -> bytes | None:
            try:
                fill(store, "raced", body)
            except AlreadyExists:
                return None
            return body

        with ThreadPoolExecutor(16) as pool:
            winners = [body for body in pool.map(race, bodies) if body]
        assert winners == [read(store, "raced")]

    def test_a_reader_keeps_what_it_opened(self, store: ObjectStore) -> None:
        fill(store, "a", b"one")
        with store.open("a") as body:
            store.delete(["a"])
            fill(store, "a", b"two")
            assert body.read() == b"one"
        assert read(store, "a") == b"two"
