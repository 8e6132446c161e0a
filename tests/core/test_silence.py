"""A server is silent while calls wait too long for it, and no longer once anything was heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from core.errors import Archived, Forbidden, NotFound, StoreUnavailable
from core.silence import Silence

SOON = 0.01


def until(condition: Callable[[], bool]) -> None:
    last = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.005)


class Server:
    """Says nothing until it is told what to say."""

    def __init__(self) -> None:
        self.asked = 0
        self.says: Exception | None = None
        self._speaks = threading.Event()

    def look(self) -> None:
        self.asked += 1
        assert self._speaks.wait(60)
        if self.says is not None:
            raise self.says

    def speak(self, says: Exception | None = None) -> None:
        self.says = says
        self._speaks.set()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.speak()


@contextmanager
def late_calls(silence: Silence, count: int = 1) -> Iterator[None]:
    with ExitStack() as calls:
        for _ in range(count):
            calls.enter_context(silence.call(SOON))
        time.sleep(2 * SOON)
        yield


def test_a_call_that_waits_too_long_makes_silence_before_it_fails(server: Server) -> None:
    silence = Silence(server.look)
    with silence.call(SOON):
        assert not silence.lasts()
        until(silence.lasts)
        assert not silence.lasts(2)
    assert not silence.lasts(), "it was answered after all"


def test_so_many_late_calls_as_are_asked_for(server: Server) -> None:
    silence = Silence(server.look)
    with late_calls(silence, 3):
        assert silence.lasts(3)
        assert not silence.lasts(4)


def test_a_late_call_that_fails_leaves_silence_and_an_early_one_does_not(server: Server) -> None:
    silence = Silence(server.look)
    with pytest.raises(StoreUnavailable), silence.call(60):
        raise StoreUnavailable("at once")
    assert not silence.lasts(3)
    with pytest.raises(StoreUnavailable), late_calls(silence):
        raise StoreUnavailable("after long")
    assert silence.lasts(3)


@pytest.mark.parametrize("answer", [NotFound("no"), Forbidden("no"), Archived("no")], ids=lambda answer: answer.code)
def test_a_late_no_is_an_answer(server: Server, answer: Exception) -> None:
    silence = Silence(server.look)
    with pytest.raises(type(answer)), late_calls(silence):
        raise answer
    assert not silence.lasts()


@pytest.mark.parametrize("answer", [None, NotFound("no"), Forbidden("no")], ids=["yes", "not-found", "forbidden"])
def test_a_look_that_is_answered_ends_it_though_the_call_still_waits(server: Server, answer: Exception | None) -> None:
    silence = Silence(server.look)
    with late_calls(silence):
        assert silence.lasts()
        assert silence.lasts()
        assert server.asked == 1, "one look at a time"
        server.speak(answer)
        until(lambda: not silence.lasts())


def test_a_look_that_fails_changes_nothing(server: Server) -> None:
    silence = Silence(server.look)
    server.speak(StoreUnavailable("no answer"))
    with late_calls(silence):
        assert silence.lasts(patience=0.1)
        assert server.asked == 1


def test_who_has_patience_waits_for_the_look(server: Server) -> None:
    silence = Silence(server.look)
    server.speak()
    with late_calls(silence):
        assert not silence.lasts(patience=30)
