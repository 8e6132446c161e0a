"""Acts of a small world, done side by side, and what must hold after them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from core.errors import MillraceError, NotFound, StoreUnavailable, Superseded
from core.model import Replica
from tests.metadata.interleaving import Act, Course, Schedule
from tests.metadata.small_world import BLOB, EMPTIED, World

SILENT = """SELECT id FROM variant WHERE state = 'failed' AND NOT EXISTS (
    SELECT FROM failure WHERE failure.id = variant.id OR failure.source = variant.source)"""

ORDERLY = (Superseded, NotFound, StoreUnavailable)
BAD_NEWS = ("mark", "renew")
"""An act that brings such may leave the blob without a good replica: what was decided before it was right."""


def play(course: Course, world: World, acts: Sequence[tuple[str, Act]], schedule: Schedule) -> None:
    """Do the acts side by side, in the order that `schedule` chooses, and look at what is left.

    Raises:
        AssertionError: something does not hold that must.
    """
    names = [name for name, _ in acts]
    at_a_loss: list[int] = []
    """The acts that committed something when no good replica was left after it, in this order."""

    def committed(number: int) -> None:
        if not world.is_good():
            at_a_loss.append(number)

    ended = course.race([act for _, act in acts], schedule, committed)
    told = f"{list(zip(names, ended.results, strict=True))}, {world.held()}"
    assert not ended.deadlocks, f"they waited for each other: {told}"
    for result in ended.results:
        assert not isinstance(result, MillraceError) or isinstance(result, ORDERLY), told
    for number in at_a_loss[:1]:
        assert names[number].startswith(BAD_NEWS), f"{names[number]} took the last good replica: {told}"
    for number in at_a_loss:
        begun = names[number] == "begin" and isinstance(ended.results[number], Replica)
        assert not begun, f"what may be the last of its kind is garbage: {told}"
    for sequel in world.sequels:
        with suppress(*ORDERLY):
            sequel()
    held = world.held()
    assert held, f"nothing is left of what an asset holds: {told}"
    if world.seen is not None:
        assert held.keys() & {EMPTIED} <= world.seen, f"something came into a drained store: {told}, {held}"
    if at_a_loss and "renew" not in names:
        lost = {
            f"{BLOB.sha256.hex()}.{world.generations[name]}" for name, row in world.rows.items() if row[0] == "healthy"
        }
        thrown_away = lost & {key for (key,) in world.sql("SELECT key FROM garbage WHERE NOT given_out")}
        assert not thrown_away, f"what is good may be garbage: {told}, {held}"
    assert not world.sql(SILENT), f"a variant failed, and no failure says so: {told}"
    named = {f"{BLOB.sha256.hex()}.{generation} in {store}" for store, (_, generation, _) in held.items()}
    garbage = {f"{key} in {store}" for store, key in world.sql("SELECT store, key FROM garbage")}
    assert not named & garbage, f"a row names garbage: {told}, {named & garbage}"
