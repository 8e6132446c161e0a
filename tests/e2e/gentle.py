"""Jobs whose one body takes minutes, and what goes on beside them."""

from __future__ import annotations

import random
from uuid import UUID

import httpx

from tests.faults.outage import picture
from tests.faults.stack import Stack

JOBS = 3


def jobs_leave_the_others_alone_and_hear_their_end(stack: Stack) -> None:
    """Run as many throttled jobs as there are processes that render: variants are made, gc and repair go on, and each
    job ends in the middle of its body when a client cancels or pauses it."""
    for number in range(JOBS):
        body = picture() + random.Random(number).randbytes(600 << 10)
        assert stack.upload(f"/bare/gentle/{number}.jpg", body, wait=20).status == 201
    gone = stack.upload("/bare/gentle/gone.jpg", picture(), wait=20)
    made = [_job(stack, 0.001 + number / 1e5) for number in range(JOBS)]
    stack.until(lambda: [_state(stack, one) for one in made] == ["running"] * JOBS, 30, "all jobs run")
    for width in range(20, 26):
        answer = httpx.get(f"{stack.url}/assets/bare/gentle/0.jpg/-/content?w={width}", timeout=30)
        assert answer.status_code == 200
    stack.delete(gone, purge=True)
    sha256 = bytes.fromhex(gone.sha256)
    stack.until(
        lambda: stack.sql("SELECT 1 FROM blob WHERE sha256 = %s", sha256) == [], 30, "what was purged is collected"
    )
    for job, word, state in zip(made, ("cancel", "pause", "cancel"), ("cancelled", "paused", "cancelled"), strict=True):
        assert _state(stack, job) == "running"
        assert stack.request("POST", f"/jobs/{job}/{word}") in (200, 202)
        stack.until(lambda job=job, state=state: _state(stack, job) == state, 20, f"the job is {state}")
    for job in made:
        stack.request("POST", f"/jobs/{job}/cancel")


def _job(stack: Stack, rate: float) -> UUID:
    said = {"kind": "verify", "arguments": {"maxMbS": rate}}
    answer = httpx.post(f"{stack.url}/jobs", json=said, timeout=20)
    assert answer.status_code in (200, 201, 202), answer.text
    return UUID(answer.json()["id"])


def _state(stack: Stack, job: UUID) -> str:
    return str(httpx.get(f"{stack.url}/jobs/{job}", timeout=20).json()["state"])
