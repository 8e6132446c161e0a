"""What a store does beside keeping objects: links, copies, sweeping, and a word on its own health."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.errors import NotFound
from storage.interface import ObjectStore
from storage.memory import MemoryOptions, MemoryStore
from tests.contracts.object_store.backend import Backend
from tests.contracts.object_store.use import Zeros, fill, keys, read, sha256

BLOB = f"{2:064x}.2"
"""A key of ours: no other's unfinished upload would be swept."""


class Upkeep(Backend):
    def test_a_store_that_answers_has_a_closed_breaker(self, store: ObjectStore) -> None:
        fill(store, "a")
        assert store.breaker == "closed"

    def test_a_link_is_an_address_or_nothing(self, store: ObjectStore) -> None:
        fill(store, "a")
        link = store.url("a", ttl=timedelta(minutes=1))
        assert link is None or link.startswith(("http://", "https://"))

    def test_what_another_kind_of_store_holds_is_not_copied_behind_our_back(self, store: ObjectStore) -> None:
        source = MemoryStore("source", MemoryOptions())
        fill(source, "a", b"bytes")
        copied = store.copy_from(source, "a", "b")
        assert keys(store) == ([] if copied is None else ["b"])
        assert copied is None or read(store, "b") == b"bytes"

    def test_a_copy_within_a_store_is_an_object_of_its_own(self, store: ObjectStore) -> None:
        fill(store, "a", b"bytes")
        copied = store.copy_from(store, "a", "b")
        store.delete(["a"])
        assert keys(store) == ([] if copied is None else ["b"])
        assert copied is None or (copied.key, read(store, "b")) == ("b", b"bytes")

    def test_what_can_be_read_needs_no_restoration(self, store: ObjectStore) -> None:
        fill(store, "a", b"bytes")
        fill(store, "empty", b"")
        assert (store.restore("a"), store.restore("empty")) == (0, 0)
        assert read(store, "a") == b"bytes"
        assert keys(store) == ["a", "empty"]

    def test_what_is_not_there_cannot_be_restored(self, store: ObjectStore) -> None:
        with pytest.raises(NotFound):
            store.restore("a")

    def test_a_sweep_leaves_what_lives(self, store: ObjectStore) -> None:
        """Objects, and a body that is on its way."""
        size, test = 2 * self.part_size + 1, self

        class Swept(Zeros):
            def read(self, count: int = -1) -> bytes:
                if self.left < size // 2 and test.tells_age_of_unfinished:
                    assert store.sweep_unfinished() == 0
                return super().read(count)

        fill(store, "a", b"one")
        store.put(BLOB, Swept(size), size=size, sha256=sha256(bytes(size)), media_type="image/png")  # type: ignore[arg-type]  # a raw stream is a body
        assert store.sweep_unfinished() == 0
        assert read(store, "a") == b"one"
        assert store.head(BLOB).size == size
