from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from kombu import Connection, Queue
from kombu.message import Message

from supervise.embedded_valkey import Valkey
from supervise.processes import start, stop
from tasks import redis_transport


@pytest.fixture(autouse=True)
def _installed() -> None:
    redis_transport.install()


def test_an_acknowledgement_that_is_lost_frees_its_place(tmp_path: Path, services_directory: Path) -> None:
    server = Valkey(tmp_path / "data", services_directory / "acknowledged")
    child = start(server, tmp_path / "valkey.log")
    taken: list[Message] = []
    try:
        with Connection(server.url) as connection, connection.channel() as channel:
            with connection.SimpleQueue("q") as queue:
                queue.put({"an": "id"})
            channel.basic_qos(0, 1, False)
            with connection.Consumer([Queue("q")], channel=channel, on_message=taken.append, accept=["json"]):
                connection.drain_events(timeout=5)
                assert not channel.qos.can_consume()
                os.kill(child.pid, signal.SIGKILL)
                taken[0].ack_log_error(logger=redis_transport.log, errors=connection.connection_errors)
                assert channel.qos.can_consume()
                with pytest.raises(connection.connection_errors):
                    connection.drain_events(timeout=5)
    finally:
        stop([child])


@pytest.mark.parametrize("junk", [b"", b"not JSON", b"\xff", b"[]", b"1", b"{}", b'{"body": 1, "properties": null}'])
def test_what_is_no_message_is_dropped(redis_url: str, junk: bytes) -> None:
    taken: list[Message] = []
    with redis.Redis.from_url(redis_url) as client, Connection(redis_url) as connection:
        with connection.SimpleQueue("junk") as queue:
            client.lpush("junk", junk)
            queue.put("a message")
            with connection.Consumer(
                [Queue("junk")], channel=connection.channel(), on_message=taken.append, accept=["json"]
            ):
                while not taken:
                    connection.drain_events(timeout=5)
                taken[0].ack()
        assert client.llen("junk") == 0
