from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from coordination.broker import Broker
from core.errors import BrokerUnavailable
from supervise.embedded_valkey import Valkey
from supervise.processes import start, stop


def test_it_counts_what_waits_in_a_queue(redis_url: str) -> None:
    broker = Broker(SecretStr(redis_url), key_prefix="mine:", seconds=2)
    broker.ping()
    assert broker.depth("q") == 0
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("mine:q", "a", "b")
    assert broker.depth("q") == 2
    broker.close()


def test_a_full_server_is_unavailable_for_those_who_send(tmp_path: Path, services_directory: Path) -> None:
    server = Valkey(tmp_path / "data", services_directory / "full")
    child = start(server, tmp_path / "valkey.log")
    broker = Broker(SecretStr(server.url), key_prefix="", seconds=2)
    try:
        with redis.Redis.from_url(server.url) as client:
            client.lpush("q", "a")
            client.config_set("maxmemory", 1)
        with pytest.raises(BrokerUnavailable):
            broker.depth("q")
        broker.ping()
    finally:
        broker.close()
        stop([child])


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = Broker(SecretStr(f"redis://:hush@127.0.0.1:{port}/0"), key_prefix="", seconds=1)
    with pytest.raises(BrokerUnavailable) as caught:
        broker.ping()
    assert "hush" not in caught.value.detail
    broker.close()


def test_a_stopped_server_is_unavailable_within_the_deadline(tmp_path: Path, services_directory: Path) -> None:
    server = Valkey(tmp_path / "data", services_directory / "stopped")
    child = start(server, tmp_path / "valkey.log")
    broker = Broker(SecretStr(server.url), key_prefix="", seconds=0.3)
    try:
        broker.ping()
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(BrokerUnavailable):
            broker.depth("q")
    finally:
        os.kill(child.pid, signal.SIGCONT)
        broker.close()
        stop([child])
