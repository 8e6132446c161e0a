"""Work in threads: each kind in a lane of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.queues import EAGER, INTERACTIVE
from core.sections import Work
from core.settings import Settings
from tasks import base, celery_app, lanes
from tasks.lanes import Lanes

KINDS = sorted([INTERACTIVE, EAGER, "ingest", *celery_app.schedule(Settings())])


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Lanes]:
    found = Lanes(Settings(home=tmp_path, work=Work(ingest_concurrency=1, variants_concurrency=1)))
    yield found
    found.close(0)


@pytest.mark.parametrize("busy", KINDS)
def test_a_backlog_of_one_kind_holds_no_other(made: Lanes, busy: str) -> None:
    goes_on, done = threading.Event(), {name: threading.Event() for name in KINDS if name != busy}
    for number in range(2 * lanes.CAPACITY):
        made.put(busy, number, lambda: goes_on.wait(60))
    for name, event in done.items():
        made.put(name, name, event.set)
    assert [name for name, event in done.items() if not event.wait(30)] == []
    goes_on.set()


def test_what_waits_is_there_once_and_no_more_than_fits(made: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "CAPACITY", 3)
    begun, goes_on, last = threading.Event(), threading.Event(), threading.Event()
    done: list[int] = []
    made.put("ingest", "first", lambda: (begun.set(), goes_on.wait(60)))
    assert begun.wait(30)
    for _ in range(5):
        for number in range(5):
            made.put("ingest", number, lambda number=number: (done.append(number), number == 2 and last.set()))
    goes_on.set()
    assert last.wait(30)
    assert done == [0, 1, 2]


def test_an_end_waits_for_what_is_under_way_and_begins_nothing(made: Lanes) -> None:
    begun, goes_on, done = threading.Event(), threading.Event(), []
    made.put("ingest", "first", lambda: (begun.set(), goes_on.wait(60), done.append("first")))
    made.put("ingest", "second", lambda: done.append("second"))
    assert begun.wait(30)
    made.close(0)
    ending = threading.Thread(target=made.close, args=(60,))
    ending.start()
    goes_on.set()
    ending.join(30)
    assert not ending.is_alive()
    made.put("ingest", "third", lambda: done.append("third"))
    assert done == ["first"]


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize(("queue", "apart"), [(INTERACTIVE, True), (EAGER, False)])
def test_with_threads_a_message_is_over_before_its_work_is(
    made: Lanes, monkeypatch: pytest.MonkeyPatch, queue: str, apart: bool
) -> None:
    from tasks import derive

    monkeypatch.setattr(base, "_lanes", made)
    monkeypatch.setattr(derive, "services", lambda: SimpleNamespace())
    begun, goes_on, asked = threading.Event(), threading.Event(), []

    def work(_services: object, source: bytes, *, apart: bool) -> bool:
        begun.set()
        assert goes_on.wait(60)
        asked.append((source, apart))
        return False

    monkeypatch.setattr(derive, "derive", work)
    derive.run.push_request(id="a", delivery_info={"routing_key": queue})
    derive.run("ab" * 32)
    derive.run.pop_request()
    assert begun.wait(30)
    assert asked == []
    goes_on.set()
    made.close(30)
    assert asked == [(b"\xab" * 32, apart)]
