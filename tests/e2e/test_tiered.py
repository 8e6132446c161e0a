"""The example of docs/stores.md with a hot tier, as the settings of a whole stack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.deploy.test_stores_document import section
from tests.e2e.test_placement import content, files, held, stored
from tests.faults.history import Told
from tests.faults.stack import SETTINGS, Stack
from tests.pictures import encoded
from tests.s3_server import S3Server, s3_server

BODIES = [encoded(Image.effect_noise((100, 100), 60 + number), "PNG") for number in range(3)]
ROOM = 2 * max(map(len, BODIES))
"""For two of them."""

SERVICE = """endpoint_url = "{endpoint}"
access_key_id = "key"
secret_access_key = "secret"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path / "moto.log") as made:
        made.make_bucket("pictures")
        yield made


@pytest.fixture
def stack(tmp_path: Path, server: S3Server) -> Iterator[Stack]:
    found = re.search(r"```toml\n(.*?)```", section("Tiered"), re.DOTALL)
    assert found
    example = found[1].replace('root = "/', f'root = "{tmp_path}/')
    example = example.replace('region = "eu-central-1"\n', SERVICE.format(endpoint=server.endpoint))
    example = example.replace('"20GiB"', str(ROOM)).replace('"1GiB"', str(ROOM))
    settings = SETTINGS.replace("[work]", "[work]\nlast_read_seconds = 0")
    with Stack(tmp_path, settings=example + settings) as made:
        yield made


def downloads(server: S3Server, told: Told) -> int:
    return server.requests("GET", f"pictures/{told.sha256}.")


def read_until_copied(stack: Stack, told: Told, body: bytes) -> None:
    assert content(stack, told.path) == body
    stack.until(lambda: held(stack, told.sha256) == ["bulk", "near"], 30, f"{told.path} has a copy")


def last_read(stack: Stack, told: Told) -> float:
    query = "SELECT extract(epoch FROM coalesce(last_read_at, '-infinity')) FROM blob WHERE encode(sha256, 'hex') = %s"
    [(at,)] = stack.sql(query, told.sha256)
    return float(at)


def test_what_is_read_comes_near_and_what_was_read_longest_ago_goes(
    stack: Stack, server: S3Server, tmp_path: Path
) -> None:
    first, second, third = (stored(stack, f"/bare/{number}.png", body) for number, body in enumerate(BODIES))
    near = tmp_path / "srv" / "millrace" / "near"
    assert files(near) == []
    assert downloads(server, first) == 0

    read_until_copied(stack, first, BODIES[0])
    assert downloads(server, first) == 2, "for the client and for the copy"
    assert files(near) == [first.sha256]
    stack.until(lambda: is_served_near(stack, server, first, BODIES[0]), 30, "whoever serves it knows of the copy")

    read_until_copied(stack, second, BODIES[1])
    before = last_read(stack, second)
    assert content(stack, first.path) == BODIES[0]
    stack.until(lambda: last_read(stack, first) > before, 30, "it is known to be read lately")
    read_until_copied(stack, third, BODIES[2])
    assert held(stack, second.sha256) == ["bulk"], "it was copied after the first, and read before it"
    stack.until(lambda: files(near) == sorted([first.sha256, third.sha256]), 30, "its file is gone")

    again = stored(stack, "/bare/again.png", BODIES[0])
    delete(stack, again)
    assert held(stack, first.sha256) == ["bulk", "near"], "gc has looked at it"
    delete(stack, first)
    stack.until(lambda: files(near) == [third.sha256], 30, "the copy goes with its asset")
    stack.until(lambda: not any(first.sha256 in key for key in server.keys("pictures")), 30, "and so does the original")
    assert content(stack, third.path) == BODIES[2]


def is_served_near(stack: Stack, server: S3Server, told: Told, body: bytes) -> bool:
    before = downloads(server, told)
    assert content(stack, told.path) == body
    return downloads(server, told) == before


def delete(stack: Stack, told: Told) -> None:
    """And wait until gc has looked at its bytes."""
    assert httpx.delete(f"{stack.url}/assets{told.path}/-/entry/0?purge=true").status_code == 200
    due = "SELECT count(*) FROM blob WHERE gc_after IS NOT NULL AND encode(sha256, 'hex') = %s"
    stack.until(lambda: stack.sql(due, told.sha256) == [(0,)], 30, "gc has looked at it")
