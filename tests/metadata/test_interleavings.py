"""Any two of what may be done to the replicas of a blob, side by side, with one switch at every statement.

All interleavings, and three at once, are in `tests/soak/interleavings.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.metadata.acts import WORLDS, Acts
from tests.metadata.interleaving import Course, OneSwitch, stops
from tests.metadata.playing import play
from tests.metadata.small_world import Rows, World


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World.open(database_url)
    yield made
    made.close()


@pytest.fixture
def course(database_url: str) -> Iterator[Course]:
    made = Course(database_url)
    with stops():
        yield made
    made.close()


@pytest.mark.parametrize(("rows", "acts_of"), WORLDS.values(), ids=list(WORLDS))
def test_any_two_leave_what_must_be_left(
    course: Course, world: World, rows: Rows, acts_of: Callable[[World], Acts]
) -> None:
    acts = acts_of(world)
    for first in acts.items():
        for second in acts.items():
            steps, schedule = 0, OneSwitch(0)
            while steps == 0 or schedule.switched:
                steps += 1  # none at all is the other way round, with all
                world.begin(rows)
                schedule = OneSwitch(steps)
                play(course, world, [first, second], schedule)
