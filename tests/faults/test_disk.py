"""Disks refuse: staging's own, the store's, the scratch space of rendering. An upload is refused whole or kept whole,
and what was accepted waits, uncounted, until the disk works again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import httpx
import pytest

from core.model import Attempts
from storage.staging.entry import read_trailer
from tests.app.server import Answer, Web, head
from tests.faults.history import Told
from tests.faults.outage import picture, recorded
from tests.faults.stack import SETTINGS, Stack
from tests.faults.test_steps import broken_gif

LARGER_THAN_ANY_DISK = 1 << 60
ROOMY = f"{SETTINGS}[limits]\nmax_bytes = {LARGER_THAN_ANY_DISK}\n[variants]\nwait_seconds = 4\n"

ACCEPT = (
    "accept.after-create",
    "accept.write",
    "accept.before-fsync",
    "accept.after-fsync",
    "accept.after-rename",
    "accept.before-dirsync",
    "accept.after-dirsync",
)
PUT = ("filesystem.after-create", "filesystem.before-write", "filesystem.before-fsync", "filesystem.before-link")
ERRORS = ("ENOSPC", "EIO")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("disk"), settings=ROOMY) as made:
        yield made


def refused(stack: Stack, path: str) -> httpx.Response:
    body = picture()
    answer = httpx.post(f"{stack.url}/assets{path}", content=body, timeout=10)
    assert answer.status_code == 503, (path, answer.text)
    stack.history.add(Told(path, "", None, 503))
    return answer


def assert_accepted(stack: Stack) -> None:
    assert stack.upload("/disk/after", picture()).status == 202


@contextmanager
def refusing(stack: Stack, step: str, error: str) -> Iterator[None]:
    """Whoever comes to the step gets the error, however often."""
    armed = stack.arm(step, f"errno {error}", always=True)
    try:
        yield
    finally:
        stack.disarm(armed)


def attempts(stack: Stack, upload_id: UUID | None) -> Attempts | None:
    """As the entry itself has them; None: it has left."""
    try:
        descriptor = os.open(stack.home / "staging" / "accepted" / str(upload_id), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return read_trailer(descriptor).attempts
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("error", ERRORS)
def test_an_upload_is_refused_whole(stack: Stack, error: str) -> None:
    for name in ACCEPT:
        path = f"/disk/{error}/{name}"
        armed = stack.arm(name, f"errno {error}")
        answer = refused(stack, path)
        stack.until_fired(armed)
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert stack.world().staged["incoming"] == []
        assert_accepted(stack)
    stack.check()


def test_an_upload_waits_for_the_store(stack: Stack) -> None:
    for name, error in zip(PUT, itertools.cycle(ERRORS), strict=False):
        armed = stack.arm(name, f"errno {error}", always=True)
        told = [stack.upload("/disk/waits", picture()) for _ in range(2)]
        assert {one.status for one in told} == {202}

        for one in told:
            until_tried(stack, one, 2)
        assert not recorded(stack, told[:1])
        stack.disarm(armed)
        stack.until(partial(recorded, stack, told), 30, "both are stored")
    stack.check()


def until_tried(stack: Stack, told: Told, times: int) -> None:
    """It was worked on so often, and none of that counts against it: the disk is guilty."""

    def tried() -> bool:
        found = attempts(stack, told.upload_id)
        assert found is not None, "the entry left staging before its time"
        return found.total >= times and not found.running and found.unfinished == 0

    stack.until(tried, 30, f"{told.path} is tried {times} times")


@pytest.mark.parametrize("step", ["claim.before-drop", "staging.move-to-trash"])
def test_an_entry_that_cannot_be_dropped_is_recorded_once(stack: Stack, step: str) -> None:
    with refusing(stack, step, "EIO"):
        told = stack.upload("/disk/dropped", picture())
        stack.until(lambda: recorded(stack, [told]), 30, "it is recorded")
        until_tried(stack, told, 3)
    stack.check()


def test_an_attempt_that_cannot_be_counted_does_not_begin(stack: Stack) -> None:
    log = stack.home / "log" / "ingest.log"
    with refusing(stack, "claim.before-start", "ENOSPC"):
        told = [stack.upload("/disk/uncounted", picture()) for _ in range(3)]
        stack.until(lambda: log.read_text().count("an attempt cannot be counted") >= 6, 30, "they were tried")
        assert [attempts(stack, one.upload_id) for one in told] == [Attempts()] * 3
    stack.check()


@pytest.mark.parametrize("step", ["claim.before-quarantine", "staging.move-to-quarantine"])
def test_a_broken_picture_waits_for_quarantine_and_others_flow(stack: Stack, step: str) -> None:
    with refusing(stack, step, "EIO"):
        broken = stack.upload("/disk/broken", broken_gif(0))
        until_tried(stack, broken, 3)
        good = [stack.upload("/disk/good", picture()) for _ in range(3)]
        stack.until(lambda: recorded(stack, good), 30, "the others are stored")
    stack.until(lambda: stack.ingest(broken.upload_id).get("state") == "failed", 30, "it has failed visibly")
    assert stack.ingest(broken.upload_id)["failure"]["class"] == "bad-image"
    discard(stack, broken)


def discard(stack: Stack, told: Told) -> None:
    assert told.upload_id is not None
    stack.check(expect_failed=[told.upload_id])
    assert stack.request("DELETE", f"/failures/{told.upload_id}") == 202
    stack.until(lambda: stack.world().staged["quarantine"] == [], 30, "the failure is discarded")
    stack.history.uploads.remove(told)


@pytest.mark.parametrize("disk", ["scratch", "store"])
def test_a_variant_waits_for_its_disk(stack: Stack, disk: str) -> None:
    """Nothing is wrong with the picture, so the variant does not end as failed, however long it takes."""
    told = stack.upload("/bare/variant", picture(), wait=20)
    assert told.status == 201
    wanted = f"{stack.url}{told.location}/content?w=20"
    full = scratch_refuses(stack) if disk == "scratch" else refusing(stack, "filesystem.before-write", "ENOSPC")
    with full:
        assert httpx.get(wanted, timeout=20).status_code == 202  # after `variants.wait_seconds`
        stack.until(lambda: was_given_back(stack, told), 30, "it was tried, and that does not count")
    stack.until(partial(is_ok, wanted), 30, "it is rendered")
    stack.check()


def was_given_back(stack: Stack, told: Told) -> bool:
    query = "SELECT v.state, v.fence, v.unfinished FROM variant v JOIN asset_variant ON variant_id = v.id"
    [[state, fence, unfinished]] = stack.sql(f"{query} WHERE asset_id = %s", str(told.asset_id))
    assert state == "pending"
    return bool(fence >= 2 and unfinished == 0)


@contextmanager
def scratch_refuses(stack: Stack) -> Iterator[None]:
    scratch = stack.home / "cache" / "scratch"
    aside = scratch.with_name("aside")
    scratch.rename(aside)
    scratch.touch()
    try:
        yield
    finally:
        scratch.unlink()
        aside.rename(scratch)


def is_ok(address: str) -> bool:
    return httpx.get(address, timeout=20).status_code == 200


def test_the_high_water_mark_refuses_before_the_body(stack: Stack) -> None:
    web = Web(stack.home, port=stack.port)
    for fields in ({}, {"Expect": "100-continue"}):
        answer = refused_unread(web, "/disk/high-water", Content_Length=LARGER_THAN_ANY_DISK // 2, **fields)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["type"].endswith("staging-full")
        assert_accepted(stack)
    stack.check()


def refused_unread(web: Web, path: str, **fields: object) -> Answer:
    """Only the head is sent; with `Expect`, an invitation to go on would be read as the answer."""
    return web.exchange(head("POST", f"/assets{path}", **fields))
