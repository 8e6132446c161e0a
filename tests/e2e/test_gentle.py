"""Long work is gentle: it binds none of the processes that render."""

from __future__ import annotations

import httpx

from tests.e2e.gentle import jobs_leave_the_others_alone_and_hear_their_end
from tests.faults.outage import picture
from tests.faults.stack import Stack


def test_throttled_jobs_leave_the_others_alone_and_hear_their_end(stack: Stack) -> None:
    jobs_leave_the_others_alone_and_hear_their_end(stack)


def test_a_backlog_that_nobody_waits_for_leaves_a_process_to_those_who_wait(stack: Stack) -> None:
    """Stop the worker that takes backlogs: what clients ask for is rendered by the worker that takes nothing else."""
    told = stack.upload("/bare/gentle/waited-for.jpg", picture(), wait=20)
    assert told.status == 201
    with stack.stopped("celery", "worker", "variants@"):
        for width in range(30, 33):
            answer = httpx.get(f"{stack.url}/assets/bare/gentle/waited-for.jpg/-/content?w={width}", timeout=40)
            while answer.status_code == 202:  # a message was on its way to the stopped one
                answer = httpx.get(f"{stack.url}/assets/bare/gentle/waited-for.jpg/-/content?w={width}", timeout=40)
            assert answer.status_code == 200
