"""Bodies in parts: how they are cut, how many are on their way, what memory they take; what is left is swept."""

from __future__ import annotations

import hashlib
import io
import tempfile
import tracemalloc
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Lock, Thread
from typing import Any

import pytest

from core.errors import StoreUnavailable
from storage.s3.multipart import MAX_PARTS, part_lengths, part_size
from storage.s3.options import MIN_PART
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB, Zeros, fill, keys, read, sha256
from tests.storage.s3_options import options
from tests.storage.s3_script import Answer, Script, open_store, script
from tests.storage.test_s3 import bucket, s3, shared

__all__ = ["bucket", "s3", "script", "shared"]

LARGEST = 5 << 40


@pytest.mark.parametrize("size", [0, 1, MIN_PART * MAX_PARTS, MIN_PART * MAX_PARTS + 1, LARGEST])
def test_parts_grow_so_that_they_are_never_too_many(size: int) -> None:
    part = part_size(size, MIN_PART)
    assert part >= MIN_PART
    assert -(-size // part) <= MAX_PARTS
    assert part == MIN_PART or part - MIB < -(-size // MAX_PARTS)


@pytest.mark.parametrize("smallest", [MIN_PART, 50 * MIB])
@pytest.mark.parametrize("size", [1, MIN_PART + 1, 12 * MIB, 101 * MIB, 2 << 30, MIN_PART * MAX_PARTS + 1, LARGEST])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_body_is_cut_into_parts_that_the_service_takes(size: int, smallest: int, uniform: bool) -> None:
    lengths = part_lengths(size, smallest, uniform=uniform)
    assert sum(lengths) == size
    assert len(lengths) <= MAX_PARTS
    assert all(MIN_PART <= length <= part_size(size, smallest) for length in lengths[:-1])
    assert 0 < lengths[-1] <= lengths[0]
    if uniform:
        assert len(set(lengths[:-1])) <= 1


def sent(s3: S3Store, monkeypatch: pytest.MonkeyPatch, size: int) -> list[int]:
    """The lengths of the parts of a body of this size; none: it went in one."""
    lengths: dict[int, int] = {}
    send = s3._client.upload_part

    def note(**given: Any) -> Any:
        lengths[given["PartNumber"]] = len(given["Body"])
        return send(**given)

    monkeypatch.setattr(s3._client, "upload_part", note)
    fill(s3, "a", bytes(size))
    assert s3.head("a").size == size
    s3.delete(["a"])
    return [lengths[number] for number in sorted(lengths)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"multipart_threshold": 13 * MIB}, []),
        ({"multipart_threshold": 13 * MIB - 1}, [13 * MIB]),
        ({"multipart_part_size": 6 * MIB, "uniform_parts": True}, [6 * MIB, 6 * MIB, MIB]),
        ({"multipart_part_size": 7 * MIB, "uniform_parts": True}, [7 * MIB, 6 * MIB]),
        ({"multipart_part_size": 7 * MIB}, [13 * MIB // 2] * 2),
    ],
)
def test_how_a_body_goes(
    s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], expected: list[int]
) -> None:
    settings: dict[str, Any] = {"multipart_threshold": 5 * MIB, "multipart_part_size": 50 * MIB} | given
    store = S3Store("main", options(s3_endpoint, bucket, **settings))
    assert sent(store, monkeypatch, 13 * MIB) == expected
    store.close()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_so_many_parts_are_on_their_way_together_and_no_more(
    s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """A part ends only when as many as may be are under way; one more would break the barrier's count."""
    store = S3Store("main", options(s3_endpoint, bucket, multipart_jobs=jobs))
    together, counting = Barrier(jobs, timeout=60), Lock()
    now = most = 0
    send = store._client.upload_part

    def meet(**given: Any) -> Any:
        nonlocal now, most
        with counting:
            now += 1
            most = max(most, now)
        together.wait()
        try:
            return send(**given)
        finally:
            with counting:
                now -= 1

    monkeypatch.setattr(store._client, "upload_part", meet)
    data = bytes(6 * 5 * MIB)
    fill(store, "a", data)
    assert most == jobs
    assert store.head("a").sha256 == sha256(data)
    store.delete(["a"])
    store.close()


def test_a_stream_that_cannot_seek_is_stored(s3: S3Store) -> None:
    size = 12 * MIB + 1
    digest = hashlib.sha256(bytes(size)).digest()
    s3.put("a", Zeros(size), size=size, sha256=digest, media_type="image/png")  # type: ignore[arg-type]
    assert hashlib.sha256(read(s3, "a")).digest() == digest


def test_a_stream_that_does_not_fit_on_this_host_waits(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: io.FileIO("/dev/full", "w+"))
    with pytest.raises(StoreUnavailable, match="TMPDIR"):
        s3.put("a", Zeros(6 * MIB), size=6 * MIB, sha256=bytes(32), media_type="image/png")  # type: ignore[arg-type]
    assert keys(s3) == []


class _Sink(BaseHTTPRequestHandler):
    """Takes parts and forgets them, and knows what they hash to."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            left -= len(piece := self.rfile.read(min(left, 1 << 16)))
            digest.update(piece)
        self.server.digests[int(self.path.partition("partNumber=")[2].partition("&")[0])] = digest.digest()  # type: ignore[attr-defined]
        self._say(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._say(b"<R><UploadId>u</UploadId><ETag>x</ETag></R>")

    def do_HEAD(self) -> None:
        digests = [digest for _, digest in sorted(self.server.digests.items())]  # type: ignore[attr-defined]
        self._say(b"", {"x-amz-checksum-sha256": f"{b64encode(sha256(b''.join(digests))).decode()}-{len(digests)}"})

    def _say(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


SIZE = 256 * MIB


@pytest.fixture
def sink() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    server.daemon_threads = True
    server.digests = {}  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_memory_is_part_size_times_jobs(sink: int) -> None:
    """And a little for all the rest: the blocks on their way in, the server in this process."""
    part, jobs = 16 * MIB, 2
    store = open_store(sink, multipart_part_size=part, multipart_jobs=jobs)
    store._client  # noqa: B018 - made before it is counted
    digest = hashlib.sha256()
    for _ in range(SIZE // MIB):
        digest.update(bytes(MIB))
    tracemalloc.start()
    try:
        store.put("a", Zeros(SIZE), size=SIZE, sha256=digest.digest(), media_type="image/png")  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < part * jobs + 6 * MIB
    store.close()


BLOBS = {name: f"{number:064x}.{number}" for number, name in enumerate(("old", "young", "other"))}


@pytest.mark.parametrize(("timeout", "swept"), [(86_400, ["old"]), (60, ["old", "young"]), (1e6, [])])
def test_only_old_uploads_are_swept(script: Script, timeout: float, swept: list[str]) -> None:
    def upload(name: str, hours: float) -> str:
        key, began = f"own/{BLOBS[name]}", (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        return f"<Upload><Key>{key}</Key><UploadId>u</UploadId><Initiated>{began}</Initiated></Upload>"

    listing = f"<ListMultipartUploadsResult>{upload('old', 48)}{upload('young', 1)}</ListMultipartUploadsResult>"
    script.always = lambda asked: Answer(204) if asked.method == "DELETE" else Answer(200, body=listing.encode())
    store = script.open_store(key_prefix="own", multipart_upload_timeout=timeout)
    assert store.sweep_unfinished() == len(swept)
    assert [one.path.partition("?")[0] for one in script.asked[1:]] == [
        f"/pictures/own/{BLOBS[name]}" for name in swept
    ]
    store.close()


@pytest.mark.parametrize("prefix", ["own/", ""])
def test_only_uploads_of_ours_are_swept(s3_endpoint: str, bucket: str, prefix: str) -> None:
    """The bucket is shared: with other programs, and with other installations below other prefixes."""
    store = S3Store("main", options(s3_endpoint, bucket, key_prefix=prefix, multipart_upload_timeout=0.001))
    client = store._client
    ours = [BLOBS["old"], "catalog/000000000001-000000000002.ndjson", "millrace-doctor/1.large", "millrace-bench/1.0"]
    strange = [f"{name}{BLOBS['old']}" for name in ("other/", "owner/", "0", "own/own/")]
    strange += ["own/backups/database.dump", "backups/database.dump", f"own/{BLOBS['old']}.gz", "own/0" * 20]
    names = [*(f"{prefix}{name}" for name in ours), *strange]
    ids = {name: client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"] for name in names}
    assert store.sweep_unfinished() == len(ours)
    left = {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket)["Uploads"]}
    assert left == set(strange)
    for name in strange:
        client.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=ids[name])
    store.close()


def test_an_upload_that_cannot_be_aborted_does_not_keep_the_others(
    s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store("main", options(s3_endpoint, bucket, key_prefix="own", multipart_upload_timeout=0.001))
    client = store._client
    ids = [client.create_multipart_upload(Bucket=bucket, Key=f"own/{name}")["UploadId"] for name in BLOBS.values()]
    abort = client.abort_multipart_upload

    def fail(**given: Any) -> Any:
        if given["UploadId"] == ids[0]:
            raise StoreUnavailable("not this one")
        return abort(**given)

    with monkeypatch.context() as patch:
        patch.setattr(client, "abort_multipart_upload", fail)
        with pytest.raises(StoreUnavailable, match="not this one"):
            store.sweep_unfinished()
    assert [one["Key"] for one in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [f"own/{BLOBS['old']}"]
    assert store.sweep_unfinished() == 1
    assert keys(store) == []
    store.close()
