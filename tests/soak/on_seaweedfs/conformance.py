"""The S3 store against the contract on SeaweedFS, and what that server does in its own way, one test for each."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, ClassVar

import httpx
import pytest

from core.errors import AlreadyExists, Forbidden, StoreUnavailable
from storage.interface import ObjectStore
from storage.s3.store import S3Store
from tests.contracts.object_store import LEGAL_KEYS, ObjectStoreContract, fill, keys, read, sha256
from tests.seaweedfs_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedServer, seaweedfs_server
from tests.storage.s3_options import options

BUCKET = "pictures"
_numbers = itertools.count()


def open_store(server: SeaweedServer, **more: Any) -> S3Store:
    given = {"bucket": BUCKET, "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    return S3Store("main", options(server.endpoint, **given | more))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweedfs_server(tmp_path_factory.mktemp("seaweedfs")) as made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture
def seaweedfs(server: SeaweedServer) -> Iterator[S3Store]:
    """Open a store below a prefix of its own: the folders that deleted objects leave keep names from being used
    again."""
    store = open_store(server, key_prefix=str(next(_numbers)))
    yield store
    store.delete(keys(store))
    store.close()


class TestSeaweedfs(ObjectStoreContract):
    legal_keys: ClassVar = [
        key for key in LEGAL_KEYS if key not in ("a", "a-b", "a.b", "a/b/c", "f" * 255 + "/" + "f" * 256)
    ]

    @pytest.fixture
    def store(self, seaweedfs: S3Store) -> ObjectStore:
        return seaweedfs

    @pytest.fixture
    def residue(self, server: SeaweedServer) -> Callable[[], list[str]]:
        def uploads() -> list[str]:
            listed = server.client().list_multipart_uploads(Bucket=BUCKET)
            return [upload["Key"] for upload in listed.get("Uploads", [])]

        return uploads


def test_of_two_writers_one_creates(seaweedfs: S3Store) -> None:
    for round_ in range(20):
        bodies = [f"writer {number}".encode() for number in range(8)]

        def put(body: bytes, key: str = f"raced/{round_}") -> bool:
            try:
                seaweedfs.put(key, io.BytesIO(body), size=len(body), sha256=sha256(body), media_type="image/png")
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(len(bodies)) as pool:
            won = list(pool.map(put, bodies))
        assert won.count(True) == 1
        assert read(seaweedfs, f"raced/{round_}") == bodies[won.index(True)]


def test_signatures_are_checked(server: SeaweedServer, seaweedfs: S3Store) -> None:
    fill(seaweedfs, "a")
    store = open_store(server, key_prefix=seaweedfs.objects.prefix, secret_access_key="another")
    with pytest.raises(Forbidden):
        read(store, "a")
    with pytest.raises(Forbidden):
        store.delete(["a"])
    store.close()
    assert keys(seaweedfs) == ["a"]


def test_a_link_is_signed(seaweedfs: S3Store) -> None:
    fill(seaweedfs, "a", b"abc")
    link = seaweedfs.url("a", ttl=timedelta(minutes=5))
    assert link is not None
    assert httpx.get(link, trust_env=False).content == b"abc"
    assert httpx.get(link.replace("/a?", "/b?"), trust_env=False).status_code == 403


@pytest.mark.parametrize(("there", "refused"), [("a/b", "a"), ("c", "f" * 256)], ids=["folder", "long-name"])
def test_limit_an_object_is_a_file(seaweedfs: S3Store, there: str, refused: str) -> None:
    """Check that a file cannot be a folder, too, and that a name has at most 255 bytes. Millrace's own keys ask for
    neither."""
    fill(seaweedfs, there)
    with pytest.raises(StoreUnavailable):
        fill(seaweedfs, refused)
    assert read(seaweedfs, there) == b"bytes"


def test_limit_it_lists_folder_by_folder(seaweedfs: S3Store) -> None:
    """Check that a key that begins like a folder, followed by less than a slash, comes after what is in the folder, so
    that a listing that goes on behind it misses that. No key of Millrace begins like its folder `catalog`."""
    for key in ("a-b", "a/b"):
        fill(seaweedfs, key)
    assert keys(seaweedfs) == ["a/b", "a-b"]
    assert keys(seaweedfs, after="a-b") == []


def test_limit_a_folder_outlives_its_objects(seaweedfs: S3Store) -> None:
    fill(seaweedfs, "a/b")
    seaweedfs.delete(["a/b"])
    with pytest.raises(StoreUnavailable):
        fill(seaweedfs, "a")
    assert keys(seaweedfs) == []
