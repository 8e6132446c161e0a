"""An object is created once: equal bytes count as stored, others are refused, of many writers one wins."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import AlreadyExists
from storage.interface import ObjectStore, Span
from tests.contracts.object_store.backend import Backend
from tests.contracts.object_store.use import fill, keys, read


class Creation(Backend):
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
        assert read(store, "raced") in winners
        assert len(winners) == 1 or not self.creates_conditionally
