"""Every legal key is its own object; what is not there is not found, and only what is named is deleted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.errors import NotFound
from storage.interface import ObjectStore, Span
from tests.contracts.object_store.backend import Backend
from tests.contracts.object_store.use import fill, keys, read

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


class Keys(Backend):
    def test_every_legal_key_is_its_own_object(self, store: ObjectStore) -> None:
        for key in self.legal_keys:
            fill(store, key, key.encode())
        for key in self.legal_keys:
            assert read(store, key) == key.encode()

    @pytest.mark.parametrize("key", ILLEGAL_KEYS)
    def test_illegal_keys_are_refused_everywhere(self, store: ObjectStore, key: str) -> None:
        for call in (
            lambda: fill(store, key),
            lambda: read(store, key),
            lambda: store.head(key),
            lambda: store.delete([key]),
            lambda: store.restore(key),
            lambda: store.url(key, ttl=timedelta(minutes=1)),
            lambda: store.copy_from(store, key, "a"),
            lambda: store.copy_from(store, "a", key),
        ):
            with pytest.raises(ValueError, match="not an object key"):
                call()

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
        for key in self.legal_keys:
            fill(store, key)
        store.delete(["a/b"])
        assert keys(store) == sorted(key for key in self.legal_keys if key != "a/b")

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
