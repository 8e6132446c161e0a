"""A loop goes on after every error in it, rests, shows the error, and is there again after a fork."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from core import loops, troubles
from core.errors import Corrupt
from core.loops import Background, Guard


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(troubles, "_directory", tmp_path / "troubles")
    return tmp_path / "troubles"


ERRORS = [RuntimeError("PostgreSQL refused a statement (42501)"), ValueError("I/O operation on closed file"),
          OSError(5, "EIO"), Corrupt("a bug"), MemoryError(), RecursionError(), AssertionError()]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_thread_outlives_any_error_and_shows_what_fails_again_and_again(shown: Path, error: Exception) -> None:
    turns = 0
    failing, well = threading.Event(), threading.Event()
    heal = threading.Event()

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns > 3:
            failing.set()
            if heal.wait(10):
                well.set()
                return
        raise error

    thread = Background("made-up", turn, seconds=0.001, most_rest_seconds=0.001)
    thread.start()
    assert failing.wait(10)
    [trouble] = troubles.known(shown)
    assert (trouble.what, trouble.times) == ("made-up", 3)
    heal.set()
    assert well.wait(10)
    thread.close(10)
    assert troubles.known(shown) == []


def test_a_rest_doubles_up_to_a_minute_and_ends_with_success(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(loops.time, "monotonic", lambda: now[0])
    guard = Guard("made-up")
    rests = []
    for _ in range(9):
        assert not guard.call(_fail)
        rests.append(guard.rests)
        assert not guard.call(lambda: pytest.fail("it rests"))
        now[0] += guard.rests
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert guard.call(lambda: None)
    assert not guard.call(_fail)
    assert guard.rests == 1


def test_what_is_meant_to_end_a_loop_does() -> None:
    with pytest.raises(Corrupt):
        Guard("made-up", lets_through=(Corrupt,)).call(lambda: _raise(Corrupt("the end")))


def test_a_forked_process_gets_a_thread_and_a_fresh_start_of_its_own() -> None:
    freshened: list[int] = []
    turned = threading.Event()
    thread = Background("made-up", lambda: turned.set(), seconds=0.01, fresh=lambda: freshened.append(os.getpid()))
    thread.start()
    assert turned.wait(10)
    pid = os.fork()
    if pid == 0:
        turned.clear()
        thread.start()
        os._exit(0 if turned.wait(10) and freshened[-1] == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    thread.start()
    thread.close(10)
    assert freshened == [os.getpid()]


def test_without_a_thread_left_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = threading.Event()
    thread = Background("made-up", lambda: turned.set(), seconds=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: _raise(RuntimeError("can't start new thread")))
        thread.start()
    thread.start()
    assert turned.wait(10)
    thread.close(10)


def test_troubles_that_nobody_speaks_of_any_more_go(shown: Path) -> None:
    troubles.note("old", 2, 0, "RuntimeError", "x")
    troubles.note("new", 2, 0, "RuntimeError", "x\ny " * 400)
    (old,) = shown.glob("old.*")
    os.utime(old, (0, 0))
    (shown / "torn").write_text("{")
    [found] = troubles.known(shown)
    assert found.what == "new"
    assert len(found.detail) <= troubles.DETAIL_CHARACTERS
    assert "\n" not in found.detail
    assert not old.exists()


def test_where_nothing_can_be_written_the_loop_goes_on(tmp_path: Path, shown: Path) -> None:
    (tmp_path / "troubles").write_text("no directory")
    guard = Guard("made-up", most_rest_seconds=0)
    for _ in range(3):
        assert not guard.call(_fail)
    assert guard.call(lambda: None)
    assert troubles.known(shown) == []


def _fail() -> None:
    raise RuntimeError("nobody foresaw this")


def _raise(error: Exception) -> None:
    raise error
