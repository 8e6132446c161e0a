"""Killed writers, lost answers and a server that hangs: all or nothing is visible, and what remains is swept."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import NotFound, StoreUnavailable
from storage.postgres.store import PostgresStore
from tests.contracts.object_store import MIB, fill, keys, read, sha256
from tests.metadata.cut import CuttingProxy
from tests.metadata.test_database import Server
from tests.storage.postgres_store import SQL, connect, store_of

ROOT = Path(__file__).parents[2]
LEFT = (
    "SELECT count(*) FROM blob_object UNION ALL SELECT count(*) FROM blob_chunk"
    " UNION ALL SELECT count(*) FROM pg_largeobject_metadata"
)
NOTHING = [(0,), (0,), (0,)]


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


@pytest.fixture
def sql(url: str) -> SQL:
    return connect(url + "&options=-csearch_path%3Dmillrace_objects")


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    made = store_of(url)
    yield made
    made.close()


WRITER = """
import io, sys
from tests.contracts.object_store import fill
from tests.storage.postgres_store import store_of
url, size, options = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
fill(store_of(url, **options), "a", b"x" * size)
"""


@pytest.mark.parametrize(
    ("step", "size", "options", "there", "left"),
    [
        ("postgres.before-put", 1000, {}, False, 0),
        ("postgres.after-put", 1000, {}, True, 0),
        ("postgres.after-begin", 3 * MIB, {}, False, 1),
        ("postgres.after-batch", 3 * MIB, {}, False, 1),
        ("postgres.before-publish", 3 * MIB, {"large_object_threshold": 0}, False, 1),
        ("postgres.after-publish", 3 * MIB, {}, True, 0),
    ],
)
def test_a_killed_put_leaves_all_or_nothing(
    url: str,
    sql: SQL,
    store: PostgresStore,
    tmp_path: Path,
    step: str,
    size: int,
    options: dict[str, int],
    there: bool,
    left: int,
) -> None:
    (tmp_path / step).write_text("kill")
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", WRITER, url, str(size), repr(options)]
    assert subprocess.run(words, env=environment, timeout=60).returncode == -signal.SIGKILL
    assert keys(store) == (["a"] if there else [])
    assert store.sweep_unfinished() == 0  # it could still be a living writer's
    impatient = store_of(url, unfinished_timeout=0.001)
    assert impatient.sweep_unfinished() == left
    assert impatient.sweep_unfinished() == 0
    impatient.close()
    if not there:
        assert sql(LEFT) == NOTHING
    fill(store, "a", b"x" * size)
    assert read(store, "a") == b"x" * size
    store.delete(["a"])
    assert sql(LEFT) == NOTHING


class Meddling(io.BytesIO):
    """Does something when half of it was read."""

    def __init__(self, data: bytes, meddle: Callable[[], object]) -> None:
        super().__init__(data)
        self._meddle: Callable[[], object] | None = meddle

    def read(self, count: int | None = -1) -> bytes:
        if self._meddle and self.tell() >= len(self.getvalue()) // 2:
            self._meddle, meddle = None, self._meddle
            meddle()
        return super().read(count)


def put(store: PostgresStore, meddle: Callable[[], object]) -> None:
    data = b"x" * (4 * MIB)
    store.put("a", Meddling(data, meddle), size=len(data), sha256=sha256(data), media_type="image/png")


@pytest.mark.parametrize("options", [{}, {"large_object_threshold": 0}], ids=["chunks", "large"])
@pytest.mark.parametrize("how", ["swept", "batch-lost"])
def test_a_writer_whose_bytes_are_gone_is_told(url: str, sql: SQL, how: str, options: dict[str, int]) -> None:
    """Swept as unfinished; or the server crashed and forgot a batch, whose COMMIT did not wait for the disk."""
    store, impatient = store_of(url, **options), store_of(url, unfinished_timeout=0.001)

    def sweep() -> None:
        time.sleep(0.01)
        assert impatient.sweep_unfinished() == 1

    def lose() -> None:
        sql("DELETE FROM blob_chunk WHERE object_id = (SELECT id FROM blob_object) AND number = 4")
        sql("UPDATE blob_object SET written = written - 1048576")

    with pytest.raises(StoreUnavailable, match="gone"):
        put(store, sweep if how == "swept" else lose)
    assert keys(store) == []
    assert sql(LEFT) == NOTHING
    store.close()
    impatient.close()


def test_a_batch_whose_answer_is_lost_ends_the_put(url: str, sql: SQL, services_directory: Path) -> None:
    with CuttingProxy(url, services_directory) as proxy:
        store = store_of(proxy.url)
        assert keys(store) == []
        with pytest.raises(StoreUnavailable):
            put(store, lambda: proxy.cut_after(b"UPDATE blob_object SET written"))
        assert proxy.has_cut
        assert keys(store) == []
        assert sql(LEFT) == NOTHING
        store.close()


def test_a_last_step_whose_answer_is_lost_may_be_done_again(url: str, services_directory: Path) -> None:
    with CuttingProxy(url, services_directory) as proxy:
        store = store_of(proxy.url)
        assert keys(store) == []
        with pytest.raises(StoreUnavailable):
            put(store, lambda: proxy.cut_after(b"SET state = 'stored'"))
        assert proxy.has_cut
        assert keys(store) == ["a"]  # it was carried out
        put(store, lambda: None)
        assert read(store, "a") == b"x" * (4 * MIB)
        store.close()


@pytest.fixture
def server(services_directory: Path) -> Iterator[Server]:
    own = Server(services_directory)
    yield own
    own.stop()


def test_a_hanging_server_ends_every_call_in_time(server: Server) -> None:
    store = store_of(server.service.url, operation_timeout=1)
    fill(store, "a", bytes(4 * MIB))
    body = store.open("a")
    calls: list[Callable[[], object]] = [
        lambda: store.head("a"),
        body.__enter__().read,
        lambda: fill(store, "b"),
        lambda: keys(store),
    ]
    server.freeze()
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - began < 10
    assert store.breaker == "open"
    server.thaw()
    ends = time.monotonic() + 30
    while store.breaker != "closed":
        assert time.monotonic() < ends
        try:
            store.head("a")
        except StoreUnavailable:
            time.sleep(0.1)
    body.close()
    assert read(store, "a") == bytes(4 * MIB)
    with pytest.raises(NotFound):
        store.head("c")
    store.close()


MEASURED = """
import hashlib, sys
from pathlib import Path
from tests.contracts.object_store import MIB, Zeros
from tests.storage.postgres_store import store_of

def kibibytes(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(name + ":"))

size, store = 256 * MIB, store_of(sys.argv[1])
digest = hashlib.sha256()
for _ in range(256):
    digest.update(bytes(MIB))
list(store.scan())
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
store.put("a", Zeros(size), size=size, sha256=digest.digest(), media_type="image/png")
back = hashlib.sha256()
with store.open("a") as body:
    while block := body.read(MIB):
        back.update(block)
assert back.digest() == digest.digest()
print((kibibytes("VmHWM") - before) // 1024)
"""


def test_a_large_body_takes_little_memory(url: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", MEASURED, url]
    said = subprocess.run(words, env=environment, timeout=200, check=True, capture_output=True, text=True).stdout
    assert int(said) <= 64
