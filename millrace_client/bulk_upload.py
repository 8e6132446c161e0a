"""Many files to a Millrace: sent in parallel, each streamed from disk, then watched until it is ready.

Every file is hashed first. The hash goes along as `Content-Digest`, so a file that changes on the way is refused and
not stored wrong, and it makes the Idempotency-Key (asset path and content), so repeating a request, or the whole run,
never doubles an asset. What was lost with the host that had accepted it is still here, and is sent again.
"""

from __future__ import annotations

import base64
import hashlib
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol
from urllib.parse import quote
from uuid import uuid4

import httpx

from millrace_client.errors import Interrupted, ServiceGone
from millrace_client.http import Patience, Refusal
from millrace_client.readiness import Ended, Readiness
from millrace_client.sources import Source

CHUNK = 1 << 20
HOST_LOST = "host-lost"
SENDINGS = 3
"""Of a file, at most: so often the host that accepted it may be lost."""
LEAVE_SECONDS = 3

UNINTELLIGIBLE = (httpx.HTTPError, KeyError, TypeError, ValueError)
"""What comes of an answer that is none of Millrace's."""


@dataclass(frozen=True, slots=True)
class Failed:
    source: Source
    kind: str
    detail: str
    upload_id: str | None = None


class Progress(Protocol):
    """Called from many threads."""

    def sent(self, count: int) -> None:
        """So many bytes more; negative where a failed attempt is taken back."""

    def accepted(self, count: int = 1) -> None:
        """Count so many files more; negative where one that was accepted is lost."""

    def ended(self, *, ready: bool) -> None: ...


@dataclass(slots=True)
class Result:
    """`waiting` were accepted, and had not ended when we left; `unsent` were not accepted, without a verdict."""

    files: int = 0
    accepted: int = 0
    accepted_bytes: int = 0
    ready: int = 0
    failures: list[Failed] = field(default_factory=list)
    interrupted: bool = False
    trouble: str | None = None
    """Why the run ended early."""
    sending_seconds: float = 0.0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def waiting(self) -> int:
        return self.accepted - self.ready - sum(one.upload_id is not None for one in self.failures)

    @property
    def unsent(self) -> int:
        return self.files - self.accepted - sum(one.upload_id is None for one in self.failures)

    @property
    def complete(self) -> bool:
        return self.ready == self.files

    def count_accepted(self, size: int) -> None:
        with self._lock:
            self.accepted += 1
            self.accepted_bytes += size

    def count_sent_again(self, size: int) -> None:
        """Count a file that was accepted and is lost, and is to be accepted once more."""
        with self._lock:
            self.accepted -= 1
            self.accepted_bytes -= size

    def count_ready(self) -> None:
        with self._lock:
            self.ready += 1

    def count_failed(self, failed: Failed) -> None:
        with self._lock:
            self.failures.append(failed)


class BulkUpload:
    def __init__(
        self, client: httpx.Client, *, jobs: int, progress: Progress, patience_seconds: float, again: bool = False
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._progress = progress
        self._run_id = uuid4().hex if again else ""
        self._sendings: Counter[str] = Counter()
        self._stop = threading.Event()
        self._patience = Patience(patience_seconds, self._stop)
        self._readiness: Readiness[Source] = Readiness(client, self._conclude, self._stop, patience_seconds)
        self._work: queue.SimpleQueue[Source] = queue.SimpleQueue()
        self._started: list[threading.Thread] = []
        self.result = Result()

    def run(self, sources: Iterable[Source]) -> Result:
        """Send all and wait for all. Ctrl-C ends it early; the result says how far it came."""
        began = time.monotonic()
        for source in sources:
            self.result.files += 1
            self._work.put(source)
        try:
            senders = [self._thread(self._send_all, f"sender-{number}") for number in range(self._jobs)]
            watcher = self._thread(self._watch, "watcher")
            _join(senders)
            self.result.sending_seconds = time.monotonic() - began
            self._readiness.finish()
            _join([watcher])
        except KeyboardInterrupt:
            self.result.interrupted = True
            self._stop.set()
            for thread in self._started:
                thread.join(LEAVE_SECONDS)
            self.result.sending_seconds = self.result.sending_seconds or time.monotonic() - began
        self.result.seconds = time.monotonic() - began
        return self.result

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        """A daemon: one that waits for an answer must not hold up the end."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._started.append(thread)
        return thread

    def _send_all(self) -> None:
        while not self._stop.is_set():
            try:
                source = self._work.get_nowait()
            except queue.Empty:
                return
            self._try(source)

    def _try(self, source: Source) -> None:
        try:
            self._send(source)
        except Interrupted:
            return
        except ServiceGone as error:
            self._end_early(str(error))
        except OSError as error:
            self._fail(source, "unreadable", error.strerror or str(error))
        except httpx.LocalProtocolError:
            self._fail(source, "file-changed", "the file became shorter while it was being sent")
        except UNINTELLIGIBLE as error:
            self._fail(source, "bad-answer", f"{type(error).__name__}: {error}")

    def _watch(self) -> None:
        try:
            self._readiness.watch()
        except ServiceGone as error:
            self._end_early(str(error))
        except UNINTELLIGIBLE as error:
            self._end_early(f"the service's answer makes no sense: {type(error).__name__}: {error}")

    def _end_early(self, why: str) -> None:
        self.result.trouble = why
        self._stop.set()

    def _send(self, source: Source) -> None:
        self._sendings[source.path] += 1
        with source.file.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            sha256 = self._hash(file)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Content-Digest": f"sha-256=:{base64.b64encode(sha256).decode()}:",
                "Idempotency-Key": idempotency_key(source.path, sha256, self._run_id),
            }
            url = "/assets" + quote(os.fsencode(source.path), safe="/")
            body = _Body(file, size, self._progress.sent, self._stop)
            answer = self._patience.send(lambda: self._client.post(url, content=body.blocks(), headers=headers))
        self._note(source, size, answer)

    def _note(self, source: Source, size: int, answer: httpx.Response) -> None:
        if answer.status_code not in (201, 202):
            refusal = Refusal.of(answer)
            self._fail(source, refusal.kind, refusal.detail)
            return
        said = answer.json()
        self.result.count_accepted(size)
        self._progress.accepted()
        self._readiness.add(source, said["id"], said["links"]["self"])

    def _hash(self, file: BinaryIO) -> bytes:
        sha256 = hashlib.sha256()
        while block := file.read(CHUNK):
            if self._stop.is_set():
                raise Interrupted
            sha256.update(block)
        return sha256.digest()

    def _conclude(self, source: Source, ended: Ended) -> None:
        if ended.refusal is not None and ended.refusal.kind == HOST_LOST and self._sendings[source.path] < SENDINGS:
            self.result.count_sent_again(source.size)
            self._progress.accepted(-1)
            self._progress.sent(-source.size)
            self._try(source)  # with the key that it had: should the host return, it is there once all the same
            return
        if ended.refusal is None:
            self.result.count_ready()
        else:
            self.result.count_failed(Failed(source, ended.refusal.kind, ended.refusal.detail, ended.upload_id))
        self._progress.ended(ready=ended.refusal is None)

    def _fail(self, source: Source, kind: str, detail: str) -> None:
        self.result.count_failed(Failed(source, kind, detail))
        self._progress.ended(ready=False)


class _Body:
    """A file's bytes, again from the start for every attempt."""

    def __init__(self, file: BinaryIO, size: int, sent: Callable[[int], None], stop: threading.Event) -> None:
        self._file = file
        self._size = size
        self._sent = sent
        self._stop = stop
        self._counted = 0

    def blocks(self) -> Iterator[bytes]:
        """
        Raises:
            Interrupted: the stop event was set; the connection ends, and the service keeps nothing.
        """
        self._sent(-self._counted)
        self._counted = 0
        self._file.seek(0)
        left = self._size
        while left and (block := self._file.read(min(CHUNK, left))):
            if self._stop.is_set():
                raise Interrupted
            yield block
            left -= len(block)
            self._counted += len(block)
            self._sent(len(block))


def idempotency_key(path: str, sha256: bytes, run_id: str = "") -> str:
    """Return the same key for the same content under the same asset path: in any run, or in the one that is named."""
    parts = [os.fsencode(path), sha256, *([run_id.encode()] if run_id else [])]
    return "content-" + hashlib.sha256(b"\0".join(parts)).hexdigest()


def _join(threads: Sequence[threading.Thread]) -> None:
    """In short waits: the main thread must stay open to Ctrl-C."""
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
