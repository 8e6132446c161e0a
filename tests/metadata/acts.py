"""What may be done side by side in a small world, by name, and the rows that each world begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from tests.metadata.interleaving import Act
from tests.metadata.small_world import MOVING, MOVING_TOO, Rows, World

HOMES: Rows = {
    "main": ("healthy", False),
    "far": ("healthy", False),
    "hot": ("healthy", True),
    "sick": ("missing", False),
    "spare": ("pending", False),
}
NOTHING_HOT: Rows = {store: row for store, row in HOMES.items() if store != "hot"}
THE_LAST: Rows = {"main": ("healthy", False), "sick": ("corrupt", False)}
ONE_HOME: Rows = {"main": ("healthy", False), "hot": ("healthy", True), "sick": ("corrupt", False)}

Acts = Mapping[str, Act]


def of_two_homes(world: World) -> Acts:
    """By their names; what comes after a colon says of which replica."""
    return {
        "reserve": world.reserve,
        "confirm": world.confirm,
        "abandon": world.abandon,
        "want": world.want,
        "begin": world.begin_repair,
        "finish": partial(world.finish, "main", "far"),
        "drop": partial(world.drop, "main", "far"),
        "discard": world.discard,
        "collect": partial(world.collect, "far"),
        "mark": partial(world.mark, "far"),
        "demote": world.demote,
        "promote": world.promote,
        "set_state": world.set_state,
        "catch-up": world.catch_up,
    }


def of_one_home(world: World) -> Acts:
    return {
        "discard": world.discard,
        "evict": world.evict,
        "collect": partial(world.collect, "main"),
        "mark: main": partial(world.mark, "main"),
        "mark: hot": partial(world.mark, "hot"),
        "want": world.confirm_and_want,
    }


def of_nothing_hot(world: World) -> Acts:
    """Each is right as long as the other one is not done."""
    return {
        "drop": partial(world.drop, "main", "far"),
        "drop: back": partial(world.drop, "far", "main"),
        "finish": partial(world.finish, "main", "far"),
        "collect": partial(world.collect, "far"),
        "collect: others": partial(world.collect, "main"),
        "mark": partial(world.mark, "far"),
        "confirm": world.confirm,
        "give_up": world.give_up,
    }


def of_the_last(world: World) -> Acts:
    return {"begin": world.begin_repair, "mark": partial(world.mark, "main"), "renew": world.renew}


def of_a_failed_variant(world: World) -> Acts:
    return {
        "ask": world.ask,
        "confirm": world.confirm_and_want,
        "forget": world.forget,
        "prune": world.prune,
        "collect": partial(world.collect, "main"),
    }


def of_a_broken_source(world: World) -> Acts:
    return {
        "ask: known": partial(world.ask_for, MOVING),
        "ask: new": partial(world.ask_for, MOVING_TOO),
        "settle": partial(world.settle, frames=True),
        "settle: all": partial(world.settle, frames=False),
        "retry": world.retry_source,
        "forget": world.forget_source,
        "prune": world.prune,
        "collect": partial(world.collect, "main"),
    }


WORLDS: Mapping[str, tuple[Rows, Callable[[World], Acts]]] = {
    "two homes": (HOMES, of_two_homes),
    "nothing hot": (NOTHING_HOT, of_nothing_hot),
    "one home": (ONE_HOME, of_one_home),
    "the last": (THE_LAST, of_the_last),
    "a failed variant": (ONE_HOME, of_a_failed_variant),
    "a broken source": (THE_LAST, of_a_broken_source),
}
