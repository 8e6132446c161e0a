from __future__ import annotations

from coordination.leased_locks import LeasedLocks
from coordination.local_locks import LocalLockTable
from coordination.locks import NoLocks, Outcome
from coordination.lying_locks import LyingLockTable
from coordination.turns import PATIENCE, Turns


def locks() -> LeasedLocks:
    return LeasedLocks(LocalLockTable(), ttl=30, max_retries=1, retry_delay_ms=5)


def goes(turns: Turns, name: str = "gc") -> bool:
    with turns.take(name) as turn:
        return turn is not None


def test_one_of_many_has_the_turn() -> None:
    shared = locks()
    one, other = Turns(shared), Turns(shared)
    with one.take("gc") as turn:
        assert turn is not None
        assert turn.outcome is Outcome.HELD
        assert not goes(other)
        assert goes(other, "another name")
    assert goes(other)


def test_a_turn_that_is_taken_too_long_is_not_waited_for() -> None:
    shared = locks()
    turns = Turns(shared)
    with shared.acquire("gc"):  # by one that hangs, and goes on renewing
        went = [goes(turns) for _ in range(2 * (PATIENCE + 1))]
    assert went == 2 * ([False] * PATIENCE + [True])


def test_only_refusals_in_a_row_count() -> None:
    shared = locks()
    turns = Turns(shared)
    for _ in range(3):
        with shared.acquire("gc"):
            assert [goes(turns) for _ in range(PATIENCE)] == [False] * PATIENCE
        assert goes(turns)


def test_names_are_counted_apart() -> None:
    shared = locks()
    turns = Turns(shared)
    with shared.acquire("gc:a"), shared.acquire("gc:b"):
        for _ in range(PATIENCE):
            assert not goes(turns, "gc:a")
        assert not goes(turns, "gc:b")


def test_without_locks_everybody_has_it() -> None:
    turns = Turns(NoLocks())
    with turns.take("gc") as turn:
        assert turn is not None
        assert goes(turns)


def test_a_lock_that_lies_stops_nothing() -> None:
    for answer in (True, False):
        turns = Turns(LeasedLocks(LyingLockTable(answer=answer), ttl=30, max_retries=0, retry_delay_ms=1))
        assert any(goes(turns) for _ in range(PATIENCE + 1))
