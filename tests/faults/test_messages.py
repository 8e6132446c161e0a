"""Messages are hints: five times, late, never, or nonsense, they change nothing and stop no worker."""

from __future__ import annotations

import base64
import json
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery

from core.queues import EAGER, INTERACTIVE, MAINTENANCE, ingest_queue
from core.settings import Settings
from pipeline.installation import redis_prefix
from storage.staging.staging import Staging
from tasks.celery_app import configuration
from tests.faults.history import Told
from tests.faults.outage import assert_workers_consume, died, ingest_key, picture, recorded
from tests.faults.stack import Stack

TIMES = 5


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("messages")) as made:
        yield made


class Sender:
    """Publishes as Millrace does, or puts bytes into its queues as nobody should."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        settings = Settings(home=stack.home, redis_url=stack.services["redis_url"])
        self._prefix = str(redis_prefix(settings))
        self.ingests = ingest_queue(Staging.open(settings).host_id)
        self.queues = (self.ingests, INTERACTIVE, EAGER, MAINTENANCE)
        self.redis = redis.Redis.from_url(stack.services["redis_url"])
        self._app = Celery("sender", set_as_current=False)
        self._app.conf.update(configuration(settings, self._prefix))

    def close(self) -> None:
        self._app.close()
        self.redis.close()

    def ingest(self, *arguments: object) -> None:
        self.send("ingest", self.ingests, *arguments)

    def derive(self, source: str) -> None:
        self.send("derive", EAGER, source)

    def send(self, task: str, queue: str, *arguments: object) -> None:
        self._app.send_task(task, args=arguments, queue=queue)

    def put(self, queue: str, message: bytes) -> None:
        self.redis.lpush(self._prefix + queue, message)

    def lose(self) -> int:
        """Everything that waits in any queue; returns how many queues there were."""
        return int(self.redis.delete(*(self._prefix + queue for queue in self.queues)))

    def waiting(self) -> int:
        """In the queues, and taken but not acknowledged."""
        queued = sum(int(self.redis.llen(self._prefix + queue)) for queue in self.queues)
        return queued + int(self.redis.hlen(self._prefix + "unacked"))

    def until_all_are_taken(self, seconds: float = 60) -> None:
        self._stack.until(lambda: self.waiting() == 0, seconds, "every message was taken and acknowledged")


@pytest.fixture(scope="module")
def sender(stack: Stack) -> Iterator[Sender]:
    made = Sender(stack)
    yield made
    made.close()


def state(stack: Stack) -> list[tuple[Any, ...]]:
    """All that a repeated message could have changed."""
    return [
        *stack.sql("SELECT id, entry, blob::text FROM asset ORDER BY id"),
        *stack.sql("SELECT id, attempts FROM upload ORDER BY id"),
        *stack.sql("SELECT id, attempts, fence, state FROM variant ORDER BY id"),
        *stack.sql("SELECT blob::text, generation, state FROM replica ORDER BY 1, 2"),
    ]


def test_every_message_comes_five_times(stack: Stack, sender: Sender) -> None:
    """All at once, when the workers wake; and again, long after."""
    with stack.stopped("celery", "worker"):
        told = [stack.upload("/messages/five", picture()) for _ in range(10)]
        for _ in range(TIMES):
            repeat(sender, told)
    stack.until(lambda: recorded(stack, told), 60, "all are stored")
    stack.check()
    [[count, entries]] = stack.sql("SELECT count(*), max(entry) + 1 FROM asset WHERE path_text = '/messages/five'")
    assert count == entries == len(told)
    before = state(stack)
    for _ in range(TIMES):
        repeat(sender, told)
    sender.until_all_are_taken()
    assert state(stack) == before
    stack.check()


def repeat(sender: Sender, told: list[Told]) -> None:
    for one in told:
        sender.ingest(str(one.upload_id))
        sender.derive(one.sha256)


def test_nonsense_stops_no_worker(stack: Stack, sender: Sender) -> None:
    deaths = died(stack)
    trap = stack.home / "unpickled"
    for argument in ("no id", "../../etc/passwd", "0" * 10_000_000, None, 7, ["a"], {"a": 1}, str(uuid4())):
        sender.ingest(argument)
        sender.send("derive", INTERACTIVE, argument)
    sender.derive("zz")
    sender.derive("ab" * 32)
    for queue in sender.queues:
        sender.send("ingest", queue)
        sender.send("derive", queue, "a", "b", "c")
        sender.send("no.such.task", queue, "a")
        sender.put(queue, envelope(pickled(trap), "application/x-python-serialize", "binary"))
        sender.put(queue, envelope(b"[[", "application/json", "utf-8"))
        sender.put(queue, envelope(b"{}", "text/plain", "no-such-encoding"))
    sender.until_all_are_taken()
    assert not trap.exists()
    assert died(stack) == deaths
    assert_workers_consume(stack)
    stack.check()


@dataclass
class Trap:
    """Whoever unpickles it makes a file."""

    file: Path

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def pickled(trap: Path) -> bytes:
    return pickle.dumps([[Trap(trap)], {}, {}])


def envelope(body: bytes, content_type: str, encoding: str) -> bytes:
    """What kombu puts into the list of a queue."""
    number = str(uuid4())
    properties = {
        "correlation_id": number,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "x"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": number,
    }
    headers = {"lang": "py", "task": "ingest", "id": number, "argsrepr": "", "kwargsrepr": ""}
    message = {
        "body": base64.b64encode(body).decode(),
        "content-type": content_type,
        "content-encoding": encoding,
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(message).encode()


def test_all_messages_are_lost(stack: Stack, sender: Sender) -> None:
    with stack.stopped("celery", "worker"):
        told = [stack.upload("/messages/lost", picture()) for _ in range(10)]
        stack.until(lambda: int(sender.redis.llen(ingest_key(stack))) > 0, 10, "a message waits")
        assert sender.lose()
        time.sleep(0.1)
        sender.lose()
    stack.until(lambda: recorded(stack, told), 60, "the sweep finds them")
    assert_workers_consume(stack)
    stack.check()
