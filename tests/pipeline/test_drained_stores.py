"""What was planned before a store began to be emptied: it comes to an end elsewhere, and the migration's word holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.model import JobState
from core.sections import Placement
from pipeline.jobs import registry, runner
from pipeline.replicas.put_reserved import place
from pipeline.replicas.repair import repair
from pipeline.uploads import ingest
from pipeline.variants import derive
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_placement import held_by, lined

PICTURE = encoded(photo(320, 240), "JPEG")
RULES = {
    "at once": Placement(store="main", replicas=("fast",)),
    "in the background": Placement(store="main", replicas=("fast",), replication="background"),
    "first": Placement(store="fast", replicas=("main",)),
    "the only one": Placement(store="fast"),
}


@pytest.fixture(params=RULES)
def line(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> Iterator[Line]:
    made = lined(tmp_path, database_url, RULES[request.param])
    yield made
    made.close()


def empty(line: Line) -> None:
    """Empty `fast` as a worker does that hears of nothing but what is in the database."""
    job = registry.create(line.services, "migrate", {"source": "fast", "target": "far", "delete_source": True})
    done = runner.run(line.services, registry.KINDS, job.id)
    assert done is not None
    assert done.state is JobState.DONE


def once(call: Callable[[], None], before: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """`before`, and the first time `call` with it."""
    left = [call]

    def called(*given: Any, **named: Any) -> Any:
        if left and not after:
            left.pop()()
        result = before(*given, **named)
        if left:
            left.pop()()
        return result

    return called


def forgetting_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process that plans hear that all stores take what comes, and ask no more for long."""
    monkeypatch.setattr("pipeline.stores.states.STATES_SECONDS", 3600.0)
    line.services.placements.forget_states()
    assert line.services.placements.states() == {}


@pytest.mark.parametrize("after", [False, True], ids=["before a put", "after a put"])
@pytest.mark.parametrize("room", [ingest, derive], ids=["an original", "its variants"])
def test_what_is_under_way_ends_elsewhere(line: Line, monkeypatch: pytest.MonkeyPatch, room: Any, after: bool) -> None:
    forgetting_nothing(line, monkeypatch)
    monkeypatch.setattr(room, "place", once(lambda: empty(line), place, after=after))
    asset = line.bring("/a.jpg", PICTURE)
    repair(line.services)
    line.collect()
    assert "fast" not in held_by(line, asset.blob)
    assert "far" in held_by(line, asset.blob)
    assert line.services.metadata.stores.page("fast", b"", 10) == []
    assert list(line.services.store("fast").scan()) == []
