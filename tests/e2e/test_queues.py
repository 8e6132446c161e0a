"""A worker, beat or sweep that reads nothing any more is named by `/readyz` and `millrace doctor`, which refuse nothing
for it; and what every process logs says where it comes from."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

from core.queues import BEAT, EAGER, INTERACTIVE, MAINTENANCE, ingest_queue
from core.settings import Settings
from storage.staging import host
from tests.cli.examination import own_process
from tests.faults.stack import Stack

READ = "each is read"


def dependencies(stack: Stack) -> dict[str, Any]:
    with suppress(httpx.TransportError):
        answer = httpx.get(f"{stack.url}/readyz", timeout=5)
        assert answer.status_code == 200
        return dict(answer.json()["dependencies"])
    return {}


def queues(stack: Stack) -> str:
    return str(dependencies(stack).get("queues", {}).get("detail", ""))


@pytest.mark.parametrize(
    ("stopped", "unread"),
    [
        ([("celery", "variants@"), ("celery", "beat"), ("millrace sweep",)], [EAGER, BEAT, "sweep"]),
        (
            [("celery", "ingest@"), ("celery", "maintenance@"), ("celery", "variants@"), ("celery", "interactive@")],
            ["ingest", MAINTENANCE, EAGER, INTERACTIVE],
        ),
    ],
)
def test_what_nobody_reads_is_named_until_it_is_read_again(
    stack: Stack, stopped: list[tuple[str, ...]], unread: list[str]
) -> None:
    host_id = host.known(Settings(home=stack.home))
    expected = {"ingest": f"queue {ingest_queue(host_id)} ", "sweep": f"no sweep runs on host {host_id} "}
    words = [expected.get(name, "no beat runs" if name == BEAT else f"queue {name} ") for name in unread]
    stack.until(lambda: queues(stack) == READ, 60, "every queue is read")
    with ExitStack() as ended:
        for process in stopped:
            [pid] = stack.heads(*process)
            os.kill(pid, signal.SIGSTOP)
            ended.callback(os.kill, pid, signal.SIGCONT)
        # As if five minutes had gone by, for all: who lives says so within seconds.
        for table in ("reader", "host"):
            stack.sql(f"UPDATE {table} SET last_seen = last_seen - interval '5 minutes'")

        def said() -> bool:
            found = queues(stack)
            return all(word in found for word in words) and found.count(" since ") == len(words)

        stack.until(said, 60, f"{words} and nothing else")
        examined = own_process(stack.home, "--json", MILLRACE_CONFIG=stack.environment["MILLRACE_CONFIG"])
        assert examined.problems() == ["postgres: queues"]
        assert all(word in examined.finding("postgres", "queues")["detail"] for word in words)
    stack.until(lambda: queues(stack) == READ, 60, "every queue is read again")


def test_workers_that_lost_redis_say_again_that_they_read(stack: Stack) -> None:
    stack.until(lambda: queues(stack) == READ, 60, "every queue is read")
    stack.kill("valkey-server")
    stack.until(lambda: all(one["ok"] for one in dependencies(stack).values()), 60, "Redis is back")
    stack.sql("UPDATE reader SET last_seen = last_seen - interval '5 minutes'")
    time.sleep(2)  # a finding is a second old at most
    stack.until(lambda: queues(stack) == READ, 90, "every queue is read again")


def test_every_line_says_where_it_comes_from_and_health_is_none(stack: Stack) -> None:
    stack.until(lambda: stack.request("GET", "/livez") == 200, 20, "it lives")
    assert stack.request("GET", "/") == 200
    host_id = str(host.known(Settings(home=stack.home)))
    requests = set()
    for name in ("web", "ingest", "interactive", "variants", "maintenance", "sweep"):
        lines: list[dict[str, Any]] = [
            json.loads(line)
            for line in (stack.home / "log" / f"{name}.log").read_text().splitlines()
            if line.startswith("{")
        ]
        assert lines, name
        assert {line["host_id"] for line in lines} == {host_id}, name
        assert {line["host"] for line in lines} == {os.uname().nodename}, name
        requests |= {line["path"] for line in lines if line["message"] == "request"}
    assert "/" in requests
    assert not {"/livez", "/readyz"} & requests
