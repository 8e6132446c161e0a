"""Bodies go in and come back: of any size, in bounded memory, all or nothing."""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import Corrupt, NotFound
from storage.interface import ObjectStore
from tests.contracts.object_store.backend import Backend
from tests.contracts.object_store.use import MIB, Zeros, fill, keys, read, sha256

LARGE = 64 * MIB
MEMORY_BOUND = 36 * MIB


class Bodies(Backend):
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

    def test_a_reader_keeps_what_it_opened(self, store: ObjectStore) -> None:
        fill(store, "a", b"one")
        with store.open("a") as body:
            store.delete(["a"])
            fill(store, "a", b"two")
            assert body.read() == b"one"
        assert read(store, "a") == b"two"
