"""What every kind of lock must do. A test subclasses this and gives it a `table`; nothing else is needed.

Times to live are short here, and no test asserts that something is fast.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from coordination import leased_locks
from coordination.leased_locks import LeasedLocks, LockTable
from coordination.locks import Lease, Outcome
from core.errors import Unavailable

TTL = 0.4
"""Of leases that are to end."""
LIVING_TTL = 1.5
"""Of leases that are to be renewed, even where a thread gets its turn late."""
NEVER = 3600.0
LONG_SECONDS = 10.0
"""A wait that fails the test."""


class LocksContract:
    @pytest.fixture
    def table(self) -> LockTable:
        raise NotImplementedError

    @pytest.fixture
    def make(self, table: LockTable) -> Iterator[Callable[..., LeasedLocks]]:
        """One process's locks on the table that all share."""

        def make(
            ttl: float = LIVING_TTL, max_retries: int = 0, retry_delay_ms: int = 20, renew_seconds: float | None = None
        ) -> LeasedLocks:
            return LeasedLocks(
                table, ttl=ttl, max_retries=max_retries, retry_delay_ms=retry_delay_ms, renew_seconds=renew_seconds
            )

        yield make
        table.close()

    @pytest.fixture
    def locks(self, make: Callable[..., LeasedLocks]) -> LeasedLocks:
        return make()

    @pytest.fixture
    def stale(self, make: Callable[..., LeasedLocks]) -> LeasedLocks:
        """Of a process that is frozen: it renews nothing."""
        return make(ttl=TTL, renew_seconds=NEVER)

    def test_one_holds_and_others_are_told(self, locks: LeasedLocks) -> None:
        with locks.acquire("a") as first:
            assert first.outcome is Outcome.HELD
            with locks.acquire("a") as second:
                assert second.outcome is Outcome.TAKEN
            with locks.acquire("b") as other:
                assert other.outcome is Outcome.HELD
            assert locks.acquire("a").outcome is Outcome.TAKEN, "leaving what was refused frees nothing"

    def test_a_lock_that_was_left_can_be_taken_again(self, locks: LeasedLocks) -> None:
        for _ in range(3):
            with locks.acquire("a") as lease:
                assert lease.outcome is Outcome.HELD
            lease.release()
            assert not lease.lost.is_set()

    def test_it_is_left_by_an_error_too(self, locks: LeasedLocks) -> None:
        with pytest.raises(ZeroDivisionError), locks.acquire("a"):
            raise ZeroDivisionError
        assert outcome(locks, "a") is Outcome.HELD

    def test_of_sixteen_one_wins(self, locks: LeasedLocks) -> None:
        together = threading.Barrier(16)

        def compete(_: int) -> Lease:
            together.wait()
            return locks.acquire("a")

        with ThreadPoolExecutor(16) as pool:
            leases = list(pool.map(compete, range(16)))
        assert sorted(lease.outcome for lease in leases) == [Outcome.HELD] + [Outcome.TAKEN] * 15
        for lease in leases:
            lease.release()

    def test_never_two_at_once(self, make: Callable[..., LeasedLocks]) -> None:
        inside, most, done = 0, 0, 0

        def run(_: int) -> None:
            nonlocal inside, most, done
            with make(max_retries=500, retry_delay_ms=10).acquire("a", wait=True) as lease:
                assert lease.outcome is Outcome.HELD
                inside += 1
                most = max(most, inside)
                time.sleep(0.005)
                done += 1
                inside -= 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(run, range(24)))
        assert (most, done) == (1, 24)

    def test_the_lock_of_a_dead_holder_is_free_after_its_time(self, table: LockTable, locks: LeasedLocks) -> None:
        assert table.take("a", "of the dead", TTL)
        assert outcome(locks, "a") is Outcome.TAKEN
        until(lambda: outcome(locks, "a") is Outcome.HELD)

    def test_a_holder_that_lives_keeps_it(self, locks: LeasedLocks) -> None:
        with locks.acquire("a") as lease:
            ends = time.monotonic() + 1.2 * LIVING_TTL
            while time.monotonic() < ends:
                assert outcome(locks, "a") is Outcome.TAKEN
                time.sleep(0.05)
            assert not lease.lost.is_set()
        assert outcome(locks, "a") is Outcome.HELD

    def test_a_lost_lease_cannot_free_its_successor(self, stale: LeasedLocks, locks: LeasedLocks) -> None:
        lost = stale.acquire("a")
        until(lambda: outcome(locks, "a") is Outcome.HELD)
        with locks.acquire("a") as successor:
            assert successor.outcome is Outcome.HELD
            lost.release()
            assert lost.lost.is_set()
            assert outcome(locks, "a") is Outcome.TAKEN
            assert not successor.lost.is_set()

    def test_a_lost_lease_cannot_renew_its_successor(self, table: LockTable) -> None:
        assert table.take("a", "one", TTL)
        until(lambda: table.take("a", "two", TTL))
        assert not table.extend("a", "one", 100)
        assert table.free("a", "two")

    def test_losing_it_is_signalled_by_the_renewal(self, table: LockTable, locks: LeasedLocks) -> None:
        with locks.acquire("a") as lease:
            assert table.free("a", token_of(lease))  # as an operator does, or a flush
            assert table.take("a", "another", 100)
            assert lease.lost.wait(LONG_SECONDS)
        assert outcome(locks, "a") is Outcome.TAKEN
        assert locks.times().lost == 1

    def test_who_waits_gets_it_when_it_is_left(self, make: Callable[..., LeasedLocks]) -> None:
        patient = make(max_retries=500, retry_delay_ms=10)
        first = patient.acquire("a")
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(patient.acquire, "a", wait=True)
            time.sleep(0.1)
            assert not second.done()
            first.release()
            with second.result(LONG_SECONDS) as lease:
                assert lease.outcome is Outcome.HELD
        waits = patient.times().waits
        assert waits.count == 2
        assert waits.longest_seconds >= 0.1

    @pytest.mark.parametrize("retries", [0, 1, 5])
    def test_it_is_tried_for_as_often_as_was_said(
        self, make: Callable[..., LeasedLocks], monkeypatch: pytest.MonkeyPatch, retries: int
    ) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(leased_locks, "pause", pauses.append)
        locks = make(max_retries=retries)
        with locks.acquire("a"):
            assert locks.acquire("a", wait=True).outcome is Outcome.TAKEN
            assert len(pauses) == retries
            assert outcome(locks, "a") is Outcome.TAKEN
            assert len(pauses) == retries, "without `wait` there is one try"

    def test_the_pauses_are_spread(self, make: Callable[..., LeasedLocks], monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(leased_locks, "pause", pauses.append)
        locks = make(max_retries=60, retry_delay_ms=200)
        with locks.acquire("a"):
            locks.acquire("a", wait=True)
        assert min(pauses) >= 0.1
        assert max(pauses) <= 0.3
        assert max(pauses) - min(pauses) > 0.1
        assert len(set(pauses)) > 50

    def test_what_was_waited_for_and_held_is_counted(self, locks: LeasedLocks) -> None:
        with locks.acquire("a"):
            locks.acquire("a")
            time.sleep(0.12)
        times = locks.times()
        assert (times.waits.count, times.taken, times.unguarded, times.lost) == (2, 1, 0, 0)
        assert times.holds.count == 1
        assert times.holds.longest_seconds >= 0.12
        assert sum(times.holds.counts[3:]) == 1, "longer than 0.1 s"

    def test_without_an_answer_one_goes_on_without_a_lock(
        self, table: LockTable, make: Callable[..., LeasedLocks], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        locks = make(ttl=TTL)
        with locks.acquire("held") as lease:
            for name in ("take", "extend", "free"):
                monkeypatch.setattr(table, name, away)
            with locks.acquire("a", wait=True) as unguarded:
                assert unguarded.outcome is Outcome.UNGUARDED
            assert lease.lost.wait(LONG_SECONDS), "when its time has passed it may be anybody's"
        assert locks.times().unguarded == 1

    def test_a_silence_shorter_than_its_time_loses_nothing(
        self, table: LockTable, make: Callable[..., LeasedLocks], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        locks = make()
        with locks.acquire("a") as lease:
            with monkeypatch.context() as patch:
                patch.setattr(table, "extend", away)
                time.sleep(0.7)  # one renewal fails
            time.sleep(1.0)  # past the first time to live
            assert outcome(locks, "a") is Outcome.TAKEN
            assert not lease.lost.is_set()


def outcome(locks: LeasedLocks, name: str) -> Outcome:
    with locks.acquire(name) as lease:
        return lease.outcome


def token_of(lease: Lease) -> str:
    token: str = lease._token  # type: ignore[attr-defined]  # of a held lease
    return token


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def away(*_: object) -> bool:
    raise Unavailable("away")
