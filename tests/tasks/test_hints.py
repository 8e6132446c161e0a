"""Hints: how few there are, however many uploads come, and that they are no trouble to those who give them."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import redis
from celery import Celery
from uuid_utils.compat import uuid4, uuid7

from core.queues import EAGER, INTERACTIVE, MAINTENANCE, ingest_queue
from core.settings import Settings
from pipeline.installation import redis_prefix
from storage.staging import installation
from supervise.embedded_valkey import Valkey
from supervise.processes import start, stop
from tasks.celery_app import configuration
from tasks.hints import CeleryHints, IngestQueue
from tasks.queues import WINDOWS, window

HOST = uuid4()
LANES = [ingest_queue(HOST), INTERACTIVE, EAGER, MAINTENANCE]


def known(home: Path, redis_url: str) -> Settings:
    """Return the settings of a host that knows its installation."""
    made = Settings(home=home, redis_url=redis_url)  # type: ignore[arg-type]  # pydantic makes it a secret
    installation.keep(made, uuid4())
    return made


def celery(settings: Settings) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(configuration(settings, str(redis_prefix(settings))))
    return app


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return known(tmp_path, redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(redis_url)
    yield made
    made.close()


def waiting(client: redis.Redis, settings: Settings, lane: str) -> list[bytes]:
    return client.lrange(f"{redis_prefix(settings)}{lane}", 0, -1)  # type: ignore[return-value]  # no coroutine here


def test_a_flood_of_uploads_is_a_trickle_of_hints_that_covers_them_all(settings: Settings, client: redis.Redis) -> None:
    hints = CeleryHints(celery(settings), settings, HOST)
    uploads = [uuid7() for _ in range(500)]
    for upload_id in reversed(uploads):
        hints.ingest(upload_id)
    sent: list[UUID] = []
    deadline = time.monotonic() + 10
    while uploads[0] not in sent and time.monotonic() < deadline:
        time.sleep(0.05)
        sent = [_argument(message) for message in waiting(client, settings, ingest_queue(HOST))]
    hints.close()
    assert uploads[0] in sent  # an ingest process that starts with the oldest comes to all the others
    assert len(sent) <= window(settings, ingest_queue(HOST))


def _argument(message: bytes) -> UUID:
    [argument] = json.loads(base64.b64decode(json.loads(message)["body"]))[0]
    return UUID(argument)


def test_a_backlog_with_the_workers_away_is_no_more_than_the_windows(settings: Settings, client: redis.Redis) -> None:
    """However long it lasts: what is sent depends on what waits, not on what comes."""
    senders = [CeleryHints(celery(settings), settings, HOST) for _ in range(2)]
    offers: list[Callable[[CeleryHints], None]] = [
        lambda hints: hints.ingest(uuid7()),
        lambda hints: hints.derive(uuid4().bytes * 2, interactive=True),
        lambda hints: hints.derive(uuid4().bytes * 2, interactive=False),
        lambda hints: hints.repair(),
    ]
    for _ in range(20):  # rounds of what the publishers collect at a time
        for hints in senders:
            for offer in offers:
                for _ in range(50):
                    offer(hints)
        time.sleep(0.06)
    for hints in senders:
        hints.close()
    most = {lane: window(settings, lane) for lane in LANES}
    counts = {lane: len(waiting(client, settings, lane)) for lane in LANES}
    assert all(0 < counts[lane] <= most[lane] * 2 for lane in LANES), counts
    assert sum(most.values()) < 500


def test_a_full_redis_is_emptied_of_our_hints_beyond_the_windows(tmp_path: Path) -> None:
    """Fill Redis as a version without windows may have left it: it takes no message, and gives none away."""
    server = Valkey(tmp_path / "valkey", tmp_path / "run")
    child = start(server, tmp_path / "valkey.log")
    client = redis.Redis.from_url(server.url)
    try:
        settings = known(tmp_path / "home", server.url)
        queue, prefix = IngestQueue(celery(settings), settings, HOST), redis_prefix(settings)
        oldest = [f"{number:020}".encode() for number in range(window(settings, ingest_queue(HOST)))]
        client.lpush(f"{prefix}{ingest_queue(HOST)}", *oldest)
        for lane in LANES:
            client.lpush(f"{prefix}{lane}", *[bytes(1000)] * 3000)
        client.set("of another program", bytes(100_000))
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 1_000_000)  # type: ignore[index]
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("a", "b")
        assert queue.room() == 0
        assert client.set("a", "b"), "it takes writes again"
        assert client.lrange(f"{prefix}{ingest_queue(HOST)}", 0, -1) == oldest[::-1], "what waited longest stays"
        assert [client.llen(f"{prefix}{lane}") for lane in LANES[1:]] == [WINDOWS[lane] for lane in LANES[1:]]
        assert client.strlen("of another program") == 100_000
    finally:
        client.close()
        stop([child])


def test_a_hint_that_cannot_be_sent_is_no_trouble(tmp_path: Path) -> None:
    settings = known(tmp_path, "redis://127.0.0.1:1/0")
    hints = CeleryHints(celery(settings), settings, HOST)
    began = time.monotonic()
    for _ in range(5000):
        hints.ingest(uuid7())
    hints.derive(bytes(32), interactive=True)
    assert time.monotonic() - began < 5
    hints.close()


def test_copies_that_are_wanted_wake_up_a_worker_once(settings: Settings, client: redis.Redis) -> None:
    hints = CeleryHints(celery(settings), settings)
    for _ in range(20):
        hints.repair()
    deadline = time.monotonic() + 10
    while not (sent := waiting(client, settings, MAINTENANCE)) and time.monotonic() < deadline:
        time.sleep(0.05)
    hints.close()
    [message] = [json.loads(one) for one in sent]
    assert message["headers"]["task"] == "maintenance.repair_replicas"
    assert json.loads(base64.b64decode(message["body"]))[0] == []


def test_a_hint_that_fails_in_a_way_nobody_foresaw_takes_no_other_with_it(settings: Settings) -> None:
    """redis-py was seen to raise a ValueError: I/O operation on closed file."""
    sent: list[list[str]] = []
    done = threading.Event()

    class Stumbling:
        def send_task(self, _task: str, *, args: list[str], **_: object) -> None:
            sent.append(args)
            if len(sent) == 1:
                raise ValueError("I/O operation on closed file")
            if len(sent) == 6:
                done.set()

    hints = CeleryHints(Stumbling(), settings)  # type: ignore[arg-type]  # as much as is asked of it
    for number in range(3):
        hints.derive(bytes([number]) * 32, interactive=True)
    deadline = time.monotonic() + 30
    while len(sent) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in range(3, 6):
        hints.derive(bytes([number]) * 32, interactive=True)
    assert done.wait(30)
    assert sent == [[(bytes([number]) * 32).hex()] for number in range(6)]
    hints.close()


def test_two_installations_on_one_redis_do_not_meet(tmp_path: Path, redis_url: str, client: redis.Redis) -> None:
    ours, theirs = (known(tmp_path / name, redis_url) for name in ("ours", "theirs"))
    for settings in (ours, theirs):
        hints = CeleryHints(celery(settings), settings, HOST)  # even a host's id may be the same: a copied staging
        hints.ingest(uuid7())
        hints.repair()
        deadline = time.monotonic() + 10
        while not waiting(client, settings, MAINTENANCE) and time.monotonic() < deadline:
            time.sleep(0.05)
        hints.close()
    for settings in (ours, theirs):
        assert len(waiting(client, settings, MAINTENANCE)) == 1
        assert len(waiting(client, settings, ingest_queue(HOST))) == 1
    named = {key.decode() for key in client.scan_iter()}
    assert all(key.startswith((str(redis_prefix(ours)), str(redis_prefix(theirs)))) for key in named), named
