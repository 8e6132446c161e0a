from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from coordination.single_flight import SingleFlight
from core.errors import DatabaseUnavailable


class Work:
    """Goes on when it is told to, and counts how often it was begun."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.begun = 0
        self.go = threading.Event()

    def __call__(self) -> int:
        self.begun += 1
        assert self.go.wait(10)
        if self.fails:
            raise DatabaseUnavailable("gone")
        return self.begun


def crowd(flight: SingleFlight[int], work: Work, size: int = 16) -> list[int | str]:
    arrived = threading.Barrier(size + 1)

    def ask() -> int | str:
        arrived.wait(10)
        try:
            return flight.do("key", work)
        except DatabaseUnavailable as error:
            return error.detail

    with ThreadPoolExecutor(size) as pool:
        asked = [pool.submit(ask) for _ in range(size)]
        arrived.wait(10)
        while not work.begun:
            pass
        threading.Timer(0.5, work.go.set).start()
        return [one.result() for one in asked]


@pytest.mark.parametrize("fails", [False, True])
def test_one_of_a_crowd_works_and_all_have_its_result(fails: bool) -> None:
    work = Work(fails)
    assert set(crowd(SingleFlight[int](), work)) == ({"gone"} if fails else {1})
    assert work.begun == 1


def test_who_comes_later_works_anew() -> None:
    flight = SingleFlight[int]()
    work = Work()
    work.go.set()
    assert [flight.do("key", work), flight.do("key", work)] == [1, 2]


def test_another_key_does_not_wait() -> None:
    flight = SingleFlight[int]()
    held, free = Work(), Work()
    free.go.set()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(flight.do, "held", held)
        assert flight.do("free", free) == 1
        held.go.set()
        assert first.result() == 1
