from __future__ import annotations

import base64
import json
import threading
import time
from uuid import UUID

import pytest
import redis
from celery import Celery
from uuid_utils.compat import uuid4, uuid7

from tasks.hints import CeleryHints


@pytest.fixture
def app(redis_url: str) -> Celery:
    return Celery("test", broker=redis_url, set_as_current=False)


def test_a_flood_of_uploads_is_a_trickle_of_hints_that_covers_them_all(app: Celery, redis_url: str) -> None:
    host_id = uuid4()
    hints = CeleryHints(app, host_id)
    uploads = [uuid7() for _ in range(500)]
    for upload_id in reversed(uploads):
        hints.ingest(upload_id)
    client = redis.Redis.from_url(redis_url)
    sent: list[UUID] = []
    deadline = time.monotonic() + 10
    while uploads[0] not in sent and time.monotonic() < deadline:
        time.sleep(0.05)
        messages = client.lrange(f"ingest.{host_id}", 0, -1)
        sent = [_argument(message) for message in messages]
    client.close()
    hints.close()
    assert uploads[0] in sent  # whoever starts with the oldest comes to all the others
    assert len(sent) < 100


def _argument(message: bytes) -> UUID:
    [argument] = json.loads(base64.b64decode(json.loads(message)["body"]))[0]
    return UUID(argument)


def test_a_hint_that_cannot_be_sent_is_nobodys_problem() -> None:
    nowhere = Celery("test", broker="redis://127.0.0.1:1/0", set_as_current=False)
    hints = CeleryHints(nowhere, uuid4())
    began = time.monotonic()
    for _ in range(5000):
        hints.ingest(uuid7())
    hints.derive(bytes(32), interactive=True)
    assert time.monotonic() - began < 5
    hints.close()


def test_copies_that_are_wanted_wake_up_whoever_makes_them_once(app: Celery, redis_url: str) -> None:
    hints = CeleryHints(app)
    for _ in range(20):
        hints.repair()
    client = redis.Redis.from_url(redis_url)
    deadline = time.monotonic() + 10
    while not (sent := client.lrange("maintenance", 0, -1)) and time.monotonic() < deadline:
        time.sleep(0.05)
    client.close()
    hints.close()
    [message] = [json.loads(one) for one in sent]
    assert message["headers"]["task"] == "maintenance.repair_replicas"
    assert json.loads(base64.b64decode(message["body"]))[0] == []


def test_a_hint_that_fails_in_a_way_nobody_foresaw_takes_no_other_with_it() -> None:
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

    hints = CeleryHints(Stumbling())  # type: ignore[arg-type]  # as much as is asked of it
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
