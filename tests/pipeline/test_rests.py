"""Work that ends its process again and again rests, longer each time, whichever process comes to it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from core import troubles
from core.errors import StoreUnavailable
from core.loops import each
from core.model import JobState
from pipeline import rests as module
from pipeline.jobs import runner
from pipeline.jobs.runner import Kind, Step
from pipeline.leaving import give_everything_back
from pipeline.rests import Rests
from tests.pipeline.line import Line


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands still."""
    made = SimpleNamespace(now=1_000_000.0)
    now = SimpleNamespace(timestamp=lambda: made.now)
    monkeypatch.setattr(module, "clock", SimpleNamespace(now=lambda: now))
    return made


@pytest.fixture
def rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rests:
    monkeypatch.setattr(troubles, "_directory", tmp_path / "troubles")
    return Rests(tmp_path / "attempts", 60)


def in_a_child(work: Callable[[], object]) -> int:
    """Do the work in a process of its own, and return how that ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except SystemExit:
            os._exit(7)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies(rests: Rests) -> None:
    with rests.start("a") as left:
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)


def left(rests: Rests, name: str = "a") -> float:
    with rests.start(name) as seconds:
        return seconds


def test_what_kills_its_process_rests_longer_each_time_and_is_well_again_at_once(
    rests: Rests, clock: SimpleNamespace, tmp_path: Path
) -> None:
    for _ in range(3):
        assert in_a_child(lambda: dies(rests)) == -signal.SIGKILL
    for rest in (60, 120, 240, 480, 960, 1920, 3840, 3840):
        assert left(rests) == rest
        assert left(rests, "b") == 0
        clock.now += rest - 1
        assert in_a_child(lambda: dies(rests)) == 0  # not even tried
        clock.now += 1
        assert in_a_child(lambda: dies(rests)) == -signal.SIGKILL
    [trouble] = troubles.known(tmp_path / "troubles")
    assert (trouble.what, trouble.times) == ("a", 10)
    assert left(rests) == 3840
    clock.now += 3840
    assert left(rests) == 0
    assert troubles.known(tmp_path / "troubles") == []
    assert in_a_child(lambda: dies(rests)) == -signal.SIGKILL
    assert left(rests) == 0, "the count began anew"


@pytest.mark.parametrize(("error", "counts"), [(RuntimeError, True), (MemoryError, True), (StoreUnavailable, False)])
def test_only_errors_that_nobody_foresaw_count(rests: Rests, error: type[Exception], counts: bool) -> None:
    for _ in range(4):
        with suppress(error), rests.start("a") as seconds:
            if not seconds:
                _raise(error("x"))
    assert (left(rests) > 0) == counts


def test_an_orderly_end_and_work_that_still_runs_count_for_nothing(rests: Rests) -> None:
    def is_told_to_go() -> None:
        with rests.start("a"):
            raise SystemExit

    for _ in range(5):
        assert in_a_child(is_told_to_go) == 7
    with rests.start("a"), rests.start("a"), rests.start("a"), rests.start("a") as fourth:
        assert fourth == 0
    assert list((rests._directory).glob("a@*")) == []


def test_threads_of_a_process_that_is_told_to_go_count_for_nothing(rests: Rests) -> None:
    """Check that such a thread counts as no attempt: no exception reaches it, it is cut off with its process."""

    def is_told_to_go() -> None:
        begun = threading.Event()

        def work() -> None:
            with rests.start("a"):
                begun.set()
                threading.Event().wait()

        threading.Thread(target=work, daemon=True).start()
        assert begun.wait(30)
        give_everything_back()

    for _ in range(5):
        assert in_a_child(is_told_to_go) == 0
    assert left(rests) == 0
    assert list((rests._directory).glob("a*")) == []


def test_a_clock_that_was_wrong_once_puts_nothing_off(rests: Rests, clock: SimpleNamespace) -> None:
    clock.now += 365 * 86400
    for _ in range(3):
        in_a_child(lambda: dies(rests))
    assert left(rests) > 0
    clock.now -= 365 * 86400
    assert left(rests) == 0


def test_where_nothing_can_be_written_work_is_done_uncounted(tmp_path: Path) -> None:
    (tmp_path / "attempts").write_text("no directory")
    assert left(Rests(tmp_path / "attempts", 60)) == 0


def test_one_of_many_that_fails_stops_no_other_and_is_heard() -> None:
    done = []

    def work(item: int) -> None:
        if item % 2:
            raise RuntimeError(f"number {item}")
        done.append(item)

    with pytest.raises(RuntimeError, match="number 1"):
        each(range(6), work)
    assert done == [0, 2, 4]


def _raise(error: Exception) -> None:
    raise error


def test_a_job_that_kills_its_process_before_a_step_rests_and_one_that_gets_on_does_not(line: Line) -> None:
    steps = [False]

    def work(_services: object, _job: object, _heed: object):  # type: ignore[no-untyped-def]  # a generator of steps
        if steps[0]:
            yield Step({}, {})
        os.kill(os.getpid(), signal.SIGKILL)
        yield Step({}, {})

    kinds = {"verify": Kind(work, lambda _services, arguments: arguments)}
    job = line.services.metadata.jobs.create("verify", {})

    def run_and_die() -> None:
        """Run the job in a process of its own, on connections of its own."""
        own = Line(line.settings.home, str(line.settings.database_url.get_secret_value()))  # type: ignore[union-attr]
        runner.run(own.services, kinds, job.id)

    def lose_lease() -> None:
        line.services.metadata.database.run(
            lambda connection: (
                connection.exec_driver_sql("UPDATE job SET lease_until = now() - interval '1 s'") and None
            )
        )

    for makes_steps in (True, False):
        steps[0] = makes_steps
        for _ in range(4 if makes_steps else 2):  # the last of the four counts until a step is done
            assert in_a_child(run_and_die) == -signal.SIGKILL
            lose_lease()
    found = runner.run(line.services, kinds, job.id)
    assert found is not None
    assert found.state is JobState.QUEUED
    assert found.error is not None
    assert "rests" in found.error
    assert line.services.metadata.jobs.take(timedelta(seconds=1)) is None
