from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from celery import Celery

from tasks.clock import Clock


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
