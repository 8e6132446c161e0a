"""Who may take one of a process's threads, so that no client and no kind of work can take all of them from the others.

- A client holds at most a quarter of the threads; what it asks for beyond that waits, without a thread, and the clients
  that wait take turns.
- Health has a reserve that nothing else touches, and is not counted against a client: a balancer that asks from the
  address all requests come from must not be kept waiting by them.
- What may wait for a dependency leaves threads to uploads, whichever hangs. Health takes a quarter, reading half, and
  sending on to clients that had to read first an eighth. Bodies that come slowly leave a few to what has none.

What finds its threads taken waits without one, in the order in which it came.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Enum):
    """Listed in the order in which they are served: what was begun goes before what was not."""

    HEALTH = "health"
    SENDING = "sending on to a client that has read"
    READING = "a request without a body"
    RECEIVING = "a request with a body"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of work queues."""

    lane: Lane
    client: str


class Turns(Generic[T]):
    """Used by one thread only."""

    def __init__(self, threads: int) -> None:
        reserve = max(1, threads // 16)
        self.share = max(1, threads // 4)
        """Of one client."""
        self._threads = threads
        self._ordinary = threads - reserve
        most = {Lane.HEALTH: threads // 4, Lane.SENDING: threads // 8, Lane.READING: threads // 2}
        most[Lane.RECEIVING] = threads - 2 * reserve
        self._limits = {lane: max(1, limit) for lane, limit in most.items()}
        self._busy = dict.fromkeys(Lane, 0)
        self._held: Counter[str] = Counter()
        self._queues: dict[Place, deque[T]] = {}
        self._order: dict[Lane, deque[Place]] = {lane: deque() for lane in Lane}
        """Those of `_queues` in the order of their turns."""
        self.waiting = 0

    @property
    def busy(self) -> int:
        return sum(self._busy.values())

    def join(self, place: Place, one: T) -> None:
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = deque()
            self._order[place.lane].append(place)
        queue.append(one)
        self.waiting += 1

    def leave(self, place: Place, one: T) -> None:
        """Take it out of its queue: it waits no longer."""
        queue = self._queues[place]
        queue.remove(one)
        self.waiting -= 1
        if not queue:
            del self._queues[place]
            self._order[place.lane].remove(place)

    def next(self) -> T | None:
        """Return what gets a thread now; `end` says when it has given it back. None: nothing does."""
        if not self.waiting:
            return None
        for lane, order in self._order.items():
            if not self._has_room(lane):
                continue
            for _ in range(len(order)):
                place = order[0]
                order.rotate(-1)
                if lane is Lane.HEALTH or self._held[place.client] < self.share:
                    return self._begin(place)
        return None

    def end(self, place: Place) -> None:
        self._busy[place.lane] -= 1
        if place.lane is not Lane.HEALTH:
            self._held[place.client] -= 1
            if not self._held[place.client]:
                del self._held[place.client]

    def _has_room(self, lane: Lane) -> bool:
        if self.busy >= self._threads or self._busy[lane] >= self._limits[lane]:
            return False
        return lane is Lane.HEALTH or self.busy - self._busy[Lane.HEALTH] < self._ordinary

    def _begin(self, place: Place) -> T:
        queue = self._queues[place]
        one = queue.popleft()
        self.waiting -= 1
        if not queue:
            del self._queues[place]
            self._order[place.lane].remove(place)
        self._busy[place.lane] += 1
        if place.lane is not Lane.HEALTH:
            self._held[place.client] += 1
        return one
