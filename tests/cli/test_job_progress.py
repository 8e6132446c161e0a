"""What a job shows on its way where there is no terminal, and which code it ends with."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from cli import job_progress
from core.model import Job, JobState


def job(state: JobState = JobState.RUNNING, error: str | None = None, **progress: Any) -> Job:
    now = datetime.now(UTC)
    return Job(UUID(int=1), "migrate", {}, state, None, {}, progress, error, 1, now, now, None)


def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *shown: Job) -> list[str]:
    monkeypatch.setattr(job_progress, "LINE_SECONDS", -1.0)
    with job_progress._Display(shown[0]) as display:
        for one in shown[1:]:
            display.show(one)
    said, complained = capsys.readouterr()
    assert said == "", "that is for the result"
    return complained.splitlines()


def test_bytes_show_percent_speed_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"total": 8, "total_bytes": 8_000_000}
    first, second, third = (job(done=n, done_bytes=n * 1_000_000, **half) for n in (2, 3, 4))
    last = lines(monkeypatch, capsys, first, second, third)[-1]
    assert re.fullmatch(r"migrate: 50 %, 4\.0/8\.0 MB, [\d,.]+ MB/s, \d+:\d\d:\d\d left", last)


def test_items_are_counted_where_there_are_no_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = lines(monkeypatch, capsys, job(), job(done=1, total=4, failed=1))
    assert line == "migrate: 25 %, 1/4, 1 failed"


def test_why_it_waits_is_said_and_harmless(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    [line] = lines(monkeypatch, capsys, job(), job(error="store-unavailable: [red]\x1b[2J"))
    assert line.endswith("waiting: store-unavailable: [red]\\x1b[2J")


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (job(JobState.DONE, done=1), 0),
        (job(JobState.DONE, failed=0), 0),
        (job(JobState.DONE, failed=1), 1),
        (job(JobState.FAILED, "internal: no"), 1),
        (job(JobState.CANCELLED), 1),
        (job(JobState.PAUSED), 130),
        (job(JobState.RUNNING), 130),
    ],
)
def test_the_exit_code(ended: Job, code: int) -> None:
    assert job_progress.exit_code(ended) == code
