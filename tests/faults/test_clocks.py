"""Hosts whose clocks are an hour ahead and a year behind PostgreSQL's, killed under load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import CarefulClients, picture
from tests.faults.stack import SETTINGS, Stack

HOUR, YEAR = 3600, 365 * 86_400
SMALL = SETTINGS.replace("[work]", "[work]\ningest_concurrency = 1\nvariants_concurrency = 1")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Stack]]:
    """Start two hosts; the first has PostgreSQL, Valkey and the store, which follow the right time."""
    first, second = Stack(tmp_path / "one", settings=SMALL), Stack(tmp_path / "two", settings=SMALL)
    for stack, ahead in ((first, HOUR), (second, -YEAR)):
        stack.set_clock(ahead)
        stack.environment["MILLRACE_STORES"] = json.dumps(
            {"main": {"kind": "filesystem", "root": str(first.home / "store")}}
        )
    with first:
        urls = {f"MILLRACE_{name.upper()}": first.services[name] for name in ("database_url", "redis_url")}
        second.environment |= urls
        second.history = first.history
        (second.home / "store").symlink_to(first.home / "store")  # where the checker looks
        with second:
            yield [first, second]


def test_nothing_is_lost_and_the_newest_is_the_one_accepted_last(hosts: list[Stack]) -> None:
    bodies = []
    with ExitStack() as at_work:
        clients = [
            at_work.enter_context(CarefulClients(stack, f"host-{number}", clients=1, patience=120))
            for number, stack in enumerate(hosts)
        ]
        for round_, stack in enumerate([*hosts, hosts[0]]):
            bodies.append(picture(50_000 + round_))
            told = stack.upload_until_accepted("/same", bodies[-1], key=f"same {round_}")
            stack.kill("celery" if round_ % 2 else "app.wsgi")
            stack.until(lambda at=stack, upload=told: "entry" in at.ingest(upload.upload_id), 60, "it is known")
            clients[round_ % 2].flows(2, seconds=120)
    for stack in hosts:
        stack.check(seconds=120)
    said = httpx.get(f"{hosts[0].url}/assets/same/-/content", timeout=30)
    assert hashlib.sha256(said.content).hexdigest() == hashlib.sha256(bodies[-1]).hexdigest()
    order = hosts[0].sql("SELECT encode(blob, 'hex') FROM asset WHERE path_text = '/same' ORDER BY accepted_at")
    assert [name for (name,) in order] == [hashlib.sha256(body).hexdigest() for body in bodies]
    [(spread,)] = hosts[0].sql("SELECT extract(epoch FROM max(accepted_at) - min(accepted_at)) FROM asset")
    [(theirs,)] = hosts[0].sql(
        "SELECT extract(epoch FROM max(accepted_by_host_at) - min(accepted_by_host_at)) FROM asset"
    )
    assert spread < HOUR < YEAR < theirs
