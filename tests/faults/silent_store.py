"""A stack over several stores, two of which fall silent and then refuse, under live uploads, reads and deletes.

`ordeal` stops the S3 service by SIGSTOP for some seconds, lets everything come to rest, and has it answer 403 for as
long. Whoever calls it chooses the seconds: a test few, a soak a minute.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.faults.silent_load import Load, Sent
from tests.faults.stack import SETTINGS, Stack
from tests.s3_proxy import FORBIDDEN, S3Proxy, s3_proxy
from tests.s3_server import S3Server, s3_server

BUCKET = "silent"
REST_SECONDS = 120.0
COME_AGAIN_SECONDS = 20.0
WARM_UP = 24
"""Uploads, so that there is something to read when the stores fall silent."""

STORES = """
[stores.near]
kind = "filesystem"
root = "{home}/near"
[stores.rows]
kind = "postgres"
pool_size = 2
reader_snapshots = 1
"""
SILENT = """
[stores.{name}]
kind = "s3"
tier = "{tier}"
bucket = "{bucket}"
key_prefix = "{name}"
endpoint_url = "{endpoint}"
access_key_id = "key"
secret_access_key = "secret"
addressing_style = "path"
attempt_timeout = 1
operation_timeout = 3
breaker_failures = 3
breaker_seconds = 2
"""
RULES = """
[[placement]]
match = "/sync/**"
kind = "original"
store = "near"
replicas = ["away"]
[[placement]]
match = "/front/**"
kind = "original"
store = "front"
replicas = ["near"]
[[placement]]
match = "/later/**"
kind = "original"
store = "near"
replicas = ["away"]
replication = "background"
[[placement]]
match = "/hybrid/**"
max_bytes = 6000
store = "rows"
[[placement]]
match = "/hybrid/**"
store = "away"
"""
HELD_BY = {"sync": {"near", "away"}, "front": {"near", "front"}, "later": {"near", "away"}}
"""By the first folder of an original's path; `hybrid` goes by its size."""
HYBRID_BYTES = 6000


def places_of(path: str, size: int) -> set[str]:
    """What the rules above say of an original, once more in other words."""
    folder = path.split("/")[1]
    return HELD_BY.get(folder) or ({"rows"} if size <= HYBRID_BYTES else {"away"})


@dataclass
class Scene:
    stack: Stack
    server: S3Server
    proxy: S3Proxy

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """No answer comes."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    @contextmanager
    def forbidden(self) -> Iterator[None]:
        """Every answer is 403."""
        injected = self.proxy.inject(FORBIDDEN)
        try:
            yield
        finally:
            self.proxy.stop_faults()
            assert injected.fired


@dataclass
class Figures:
    """What one fault came to. `broken` is the proof that the tests ask for, when it is empty."""

    fault: str
    seconds: float
    accepted: int = 0
    """Uploads during the fault; all of them with 202."""
    slowest_accept: float = 0.0
    stored: dict[str, int] = field(default_factory=dict)
    """Of those, how many were stored while it lasted, by the first folder of their paths."""
    waiting: dict[str, int] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    """By what they were answered with, apart for bytes that only a silent store has."""
    slowest_read: float = 0.0
    """Of bytes that another store has."""
    deleted: int = 0
    replicas: int = 0
    """Healthy ones before the fault, compared with what they were during it and after it."""
    rest_seconds: float = 0.0
    """After the fault until everything accepted was in all its stores."""
    broken: list[str] = field(default_factory=list)


@contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    with s3_server(directory / "moto.log") as server, s3_proxy(server.endpoint) as proxy:
        server.make_bucket(BUCKET)
        silent = "".join(
            SILENT.format(name=name, tier=tier, bucket=BUCKET, endpoint=proxy.endpoint)
            for name, tier in (("away", "cold"), ("front", "hot"))
        )
        settings = 'default_store = "near"\n' + STORES.format(home=directory) + silent + RULES + SETTINGS
        with Stack(directory, settings=settings) as stack:
            yield Scene(stack, server, proxy)


def ordeal(directory: Path, seconds: float) -> list[Figures]:
    """Each fault for so many seconds. What it says is broken is in the figures."""
    with scene(directory) as found:
        return [endure(found, fault, seconds) for fault in ("stopped", "forbidden")]


def endure(found: Scene, fault: str, seconds: float) -> Figures:
    figures = Figures(fault, seconds)
    stack = found.stack
    with Load(stack, fault) as load:
        stack.until(lambda: len(load.readable) >= WARM_UP, 60, "some uploads are stored")
        verification = httpx.post(f"{stack.url}/jobs", json={"kind": "verify"}).raise_for_status().json()
        before = _healthy(stack)
        figures.replicas = len(before)
        with getattr(found, fault)():
            load.begin_fault()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                time.sleep(min(1.0, seconds / 5))
                figures.broken += _changed(stack, before)
            figures.stored = _stored(stack, [one.told.upload_id for one in load.during_fault])
            load.end_fault()
        figures.deleted = load.deleted_during_fault
        began = time.monotonic()
    figures.accepted = len(load.during_fault)
    figures.slowest_accept = max((one.told.seconds for one in load.during_fault), default=0.0)
    figures.waiting = dict(Counter(one.folder for one in load.during_fault) - Counter(figures.stored))
    figures.reads, figures.slowest_read = dict(load.reads), load.slowest_read
    figures.broken += load.wrong
    try:
        _rest(stack, load)
        figures.rest_seconds = time.monotonic() - began
        stack.until(lambda: _job(stack, verification)["state"] == "done", REST_SECONDS, "the verification is done")
    except AssertionError as error:
        figures.broken.append(str(error))
        return figures
    figures.broken += _changed(stack, before) + _violations(stack, load, _job(stack, verification))
    return figures


def _job(stack: Stack, job: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{stack.url}{job['links']['self']}", timeout=20).json()
    return told


def _healthy(stack: Stack) -> set[tuple[str, str]]:
    query = "SELECT store, encode(blob, 'hex') || '.' || generation FROM replica WHERE state = 'healthy'"
    return {(store, key) for store, key in stack.sql(query)}


def _changed(stack: Stack, before: set[tuple[str, str]]) -> list[str]:
    """Replicas that were healthy and have another state or generation now; those that were deleted have no row."""
    query = "SELECT store, encode(blob, 'hex'), generation, state FROM replica"
    now = {(store, sha256): (f"{sha256}.{number}", state) for store, sha256, number, state in stack.sql(query)}
    return [
        f"{key[:12]}… in {store} was healthy and is {now[store, key.partition('.')[0]]}"
        for store, key in before
        if now.get((store, key.partition(".")[0]), (key, "healthy")) != (key, "healthy")
    ]


def _stored(stack: Stack, uploads: list[Any]) -> dict[str, int]:
    query = "SELECT split_part(path_text, '/', 2), count(*) FROM asset WHERE upload_id = ANY(%s::uuid[]) GROUP BY 1"
    return dict(stack.sql(query, [str(one) for one in uploads]))  # type: ignore[arg-type]  # pairs


UNFINISHED = {
    "replicas": "SELECT count(*) FROM replica WHERE state <> 'healthy'",
    "variants": "SELECT count(*) FROM variant v WHERE state = 'pending'"
    " AND EXISTS (SELECT 1 FROM asset_variant a WHERE a.variant_id = v.id)",
    "garbage": "SELECT count(*) FROM garbage",
}


def _rest(stack: Stack, load: Load) -> None:
    """Everything accepted is stored, in all its stores."""
    left: dict[str, int] = {}

    def rests() -> bool:
        left.clear()
        left["staged"] = sum(1 for _ in (stack.home / "staging" / "accepted").iterdir())
        left.update({what: stack.sql(query)[0][0] for what, query in UNFINISHED.items()})
        return not any(left.values())

    try:
        stack.until(rests, REST_SECONDS, "all is at rest")
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from None
    load.find_all(REST_SECONDS)


def _read(stack: Stack, one: Sent) -> httpx.Response:
    """As a client does: a web process may not have heard yet that the store is back, and says when to come again."""
    ends = time.monotonic() + COME_AGAIN_SECONDS
    while True:
        answer = httpx.get(f"{stack.url}{one.address}/content", timeout=20)
        if answer.status_code != 503 or time.monotonic() > ends:
            return answer
        time.sleep(0.5)


def _violations(stack: Stack, load: Load, verification: dict[str, Any]) -> list[str]:
    query = "SELECT store, encode(blob, 'hex'), result, detail FROM verify_event WHERE result IN ('missing', 'corrupt')"
    found = [f"{result} in {store}: {key[:12]}… {detail}" for store, key, result, detail in stack.sql(query)]
    found += [f"failure: {row}" for row in stack.sql("SELECT subject, path_text, kind, detail FROM failure")]
    progress = verification["progress"]
    if any(progress[name] for name in ("missing", "corrupt", "unanswered")):
        found.append(f"the verification says {progress}")
    held: dict[str, set[str]] = {}
    for store, sha256 in stack.sql("SELECT store, encode(blob, 'hex') FROM replica"):
        held.setdefault(sha256, set()).add(store)
    for one in load.sent:
        answer = _read(stack, one)
        if one.told.deleted:
            found += [f"{one.address}: deleted, and answers {answer.status_code}"] * (answer.status_code != 404)
        elif (answer.status_code, hashlib.sha256(answer.content).hexdigest()) != (200, one.told.sha256):
            found.append(f"{one.address}: {answer.status_code}, or other bytes")
        elif held[one.told.sha256] != places_of(one.told.path, one.size):
            found.append(f"{one.address}: in {held[one.told.sha256]}")
    return found
