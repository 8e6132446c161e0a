"""The line over a RocksDB: one worker with threads owns it, the web processes read beside it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.errors import StoreUnavailable
from storage.object_keys import CATALOGUE, MARKER
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
from tests.contracts.object_store import fill, keys, read
from tests.e2e.gentle import jobs_leave_the_others_alone_and_hear_their_end
from tests.faults.history import Told
from tests.faults.outage import picture
from tests.faults.stack import SETTINGS, Stack


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rocksdb")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Stack]:
    settings = SETTINGS.replace("workers = 1", "workers = 2") + f'[stores.main]\nkind = "rocksdb"\nroot = "{root}"\n'
    with Stack(tmp_path_factory.mktemp("line"), settings=settings) as made:
        yield made


def large(number: int) -> bytes:
    """A picture of three chunks."""
    return picture() + random.Random(number).randbytes(600 << 10)


def content(stack: Stack, told: Told, query: str = "", **headers: str) -> httpx.Response:
    assert told.location is not None
    return httpx.get(f"{stack.url}{told.location}/content{query}", headers=headers, timeout=20)


def until_stored(stack: Stack, told: Told) -> None:
    stack.until(lambda: stack.ingest(told.upload_id).get("state") == "ready", 30, f"{told.path} is ready")


def test_uploads_are_stored_by_the_worker_and_served_by_the_web(stack: Stack) -> None:
    for number in range(5):
        data = large(number)
        told = stack.upload(f"/line/{number}.jpg", data, wait=20)
        assert told.status == 201
        assert content(stack, told).content == data
        part = content(stack, told, Range="bytes=262140-262149")
        assert (part.status_code, part.content) == (206, data[262140:262150])
        assert content(stack, told, "?profile=thumb").status_code == 200
        assert content(stack, told, f"?w={20 + number}").status_code == 200
    assert len(stack.heads("celery", "worker")) == 1


def test_the_worker_is_killed_in_the_middle_of_a_put(stack: Stack) -> None:
    """Its other steps: tests/storage/test_rocksdb.py."""
    data = large(100)
    armed = stack.arm("rocksdb.before-record", "kill")
    told = stack.upload("/killed/a.jpg", data)
    stack.until_fired(armed)
    until_stored(stack, told)
    assert httpx.get(f"{stack.url}/assets/killed/a.jpg/-/content", timeout=20).content == data


def test_what_is_deleted_leaves_the_store(stack: Stack, root: Path) -> None:
    data = picture()
    told = stack.upload("/deleted/a.jpg", data, wait=20)
    reader = RocksdbStore.beside_its_owner("main", RocksdbOptions(root=root))
    name = hashlib.sha256(data).hexdigest()
    assert len(keys(reader, name)) == 1
    assert stack.request("DELETE", told.location or "") == 204
    stack.until(lambda: keys(reader, name) == [], 30, "the object is collected")


def test_nobody_else_owns_it(stack: Stack, root: Path) -> None:
    assert stack.upload("/owned/a.jpg", picture(), wait=20).status == 201
    second = RocksdbStore.owned("main", RocksdbOptions(root=root))
    with pytest.raises(StoreUnavailable, match="another process owns"):
        fill(second, "mine")


def test_who_waits_hears_that_the_store_is_full_and_that_nothing_is_lost(stack: Stack) -> None:
    data = picture()
    armed = stack.arm("rocksdb.before-record", "errno ENOSPC", always=True)
    answer = httpx.post(f"{stack.url}/assets/full/a.jpg", content=data, headers={"Prefer": "wait=3"}, timeout=20)
    stack.disarm(armed)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (507, "store-full")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "do not send it again" in said["detail"]
    assert said["upload"]["state"] == "staged"
    assert answer.headers["Location"] == said["upload"]["links"]["self"]
    assert "Retry-After" not in answer.headers
    followed = f"{stack.url}{answer.headers['Location']}"
    stack.until(lambda: httpx.get(followed).json()["state"] == "ready", 30, "it is stored after all")
    assert httpx.get(f"{stack.url}/assets/full/a.jpg/-/content").content == data


def test_throttled_jobs_leave_the_others_alone_and_hear_their_end(stack: Stack) -> None:
    """Check this in the one process that does everything, too."""
    jobs_leave_the_others_alone_and_hear_their_end(stack)


def test_it_is_all_there_for_the_next_owner(stack: Stack, root: Path) -> None:
    told = stack.upload("/last/a.jpg", picture(), wait=20)
    assert told.status == 201
    stack.stop()
    store = RocksdbStore.owned("main", RocksdbOptions(root=root))
    found = set(keys(store))
    assert MARKER in found
    for name in found - {MARKER}:
        if name.startswith(CATALOGUE):  # a segment of the catalogue, if its time came
            continue
        assert hashlib.sha256(read(store, name)).hexdigest() == name.partition(".")[0]
    assert store.sweep_unfinished() == 0
    store.close()
