"""Listings are complete, in key order, lazy, and go on after any key."""

from __future__ import annotations

import random
from itertools import islice

from storage.interface import ObjectStore
from tests.contracts.object_store.backend import Backend
from tests.contracts.object_store.use import fill, keys


class Listing(Backend):
    def test_scan_goes_in_key_order(self, store: ObjectStore) -> None:
        for key in random.Random(2).sample(self.legal_keys, len(self.legal_keys)):
            fill(store, key)
        assert keys(store) == sorted(self.legal_keys)

    def test_scan_goes_on_after_any_key(self, store: ObjectStore) -> None:
        for key in self.legal_keys:
            fill(store, key)
        for after in [*self.legal_keys, "a/", "aa", "zzz", "!"]:
            assert keys(store, after=after) == [key for key in sorted(self.legal_keys) if key > after]

    def test_scan_by_prefix(self, store: ObjectStore) -> None:
        for key in self.legal_keys:
            fill(store, key)
        for prefix in ["a", "a/", "a/b", "a/b/", "ab", "abcd", "f" * 200, "3a7b", "3a7bd", "none", "."]:
            assert keys(store, prefix) == [key for key in sorted(self.legal_keys) if key.startswith(prefix)]
            assert keys(store, prefix, "a/b") == [
                k for k in sorted(self.legal_keys) if k.startswith(prefix) and k > "a/b"
            ]

    def test_scan_is_lazy_and_survives_deletion(self, store: ObjectStore) -> None:
        names = [f"{number:02}" for number in range(20)]
        for name in names:
            fill(store, name)
        scan = store.scan()
        assert [found.key for found in islice(scan, 3)] == names[:3]
        store.delete(names[3:])
        assert set(keys(store)) == set(names[:3])
        assert {found.key for found in scan} <= set(names)
