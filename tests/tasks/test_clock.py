from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from celery import Celery

from core import clock
from core.queues import MAINTENANCE
from pipeline.installation import await_redis_prefix
from tasks.celery_app import configuration
from tasks.clock import Clock
from tasks.queues import WINDOWS, Queues
from tests.tasks.test_hints import known


@pytest.fixture
def celerys_handler() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGTERM, end), signal.getsignal(signal.SIGINT)
    yield
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
        signal.signal(number, handler)


def turn(clock: Clock) -> None:
    for _ in range(100):
        time.sleep(max(clock.tick(), 0))


@pytest.mark.usefixtures("celerys_handler")
def test_it_ends_though_a_connection_that_fails_takes_the_place_of_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def send(clock: Clock, *_: Any, **__: Any) -> None:
        sent.append(clock)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr(Clock, "apply_async", send)
    monkeypatch.setattr(Clock, "producer", None)
    app = Celery(set_as_current=False)
    app.conf.beat_schedule = {"often": {"task": "often", "schedule": 0.01}}
    clock = Clock(app=app)
    with pytest.raises(SystemExit):
        turn(clock)
    assert len(sent) == 1


@pytest.mark.usefixtures("celerys_handler")
@pytest.mark.parametrize("ahead", [timedelta(days=-365), timedelta(hours=-1), timedelta(days=365)])
def test_it_goes_on_when_the_clock_of_its_host_is_set(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    sent: list[str] = []
    monkeypatch.setattr(Clock, "apply_entry", lambda _self, entry, producer=None: sent.append(entry.name))
    monkeypatch.setattr(Clock, "producer", None)
    app = Celery(set_as_current=False)
    app.conf.beat_schedule = {"often": {"task": "often", "schedule": 0.01}}
    beat = Clock(app=app)
    shift = timedelta(0)
    monkeypatch.setattr(Celery, "now", lambda _app: datetime.now(UTC) + shift)
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + shift)

    def sends() -> bool:
        before, ends = len(sent), time.monotonic() + 10
        while len(sent) == before and time.monotonic() < ends:
            time.sleep(min(max(beat.tick(), 0.001), 0.1))
        return len(sent) > before

    assert sends()
    shift = ahead
    assert sends()
    assert sends()


def test_it_fills_no_queue_that_nobody_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str) -> None:
    configured = known(tmp_path, redis_url)
    monkeypatch.setenv("MILLRACE_REDIS_URL", redis_url)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    app = Celery(set_as_current=False)
    app.add_defaults(lambda: {**configuration(configured, await_redis_prefix(configured)), "beat_schedule": {}})
    app.conf.beat_schedule = {"often": {"task": "often", "schedule": 0.0, "options": {"queue": MAINTENANCE}}}
    beat = Clock(app=app)
    [entry] = beat.schedule.values()
    for _ in range(WINDOWS[MAINTENANCE] * 3):
        beat.apply_entry(entry, producer=beat.producer)
    assert Queues(configured).depth(MAINTENANCE) == WINDOWS[MAINTENANCE]
