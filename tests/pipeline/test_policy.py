"""Runs of the demotion rules: what moves, what stays, and what gc, uploads and migrations make of it afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadRequest, StoreFull, StoreUnavailable
from core.model import JobState, StoreState
from core.sections import Demotion, Placement
from pipeline.jobs import demotion, migration, registry, savings
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS
from pipeline.replicas import copying
from pipeline.rules.demotion import Demotions
from tests.pictures import encoded, photo
from tests.pipeline import job_runs
from tests.pipeline.line import Line
from tests.pipeline.policy_line import MAIN_TO_FAR, age, demote, execute, homes, ruled
from tests.pipeline.test_placement import PICTURE, delete, held_by, read


def small(number: int) -> bytes:
    return encoded(photo(40 + number, 30), "JPEG")


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = ruled(tmp_path, database_url, {**MAIN_TO_FAR, "pinned": ["/bare/brand/**"]})
    yield made
    made.close()


def test_what_fits_moves_is_read_from_there_and_goes_with_its_asset(line: Line) -> None:
    moved, other = line.bring("/bare/a.jpg", PICTURE), line.bring("/bare/brand/b.jpg", small(1))
    job = demote(line)
    assert (job.progress["total"], job.progress["done"], job.progress["moved"]) == (2, 2, 1)
    assert (job.progress["moved_bytes"], job.progress["failed"]) == (len(PICTURE), 0)
    assert (held_by(line, moved.blob), held_by(line, other.blob)) == (["far"], ["main"])
    assert homes(line, moved.blob) == {"far": "main"}
    assert read(line, moved) == PICTURE
    assert len(list(line.services.store("main").scan())) == 1, "its bytes are gone when the run has ended"
    delete(line, moved)
    line.collect()
    assert list(line.services.store("far").scan()) == []


def test_gc_keeps_what_stands_for_the_store_of_a_rule(line: Line) -> None:
    one, other = line.bring("/bare/a.jpg", PICTURE), line.bring("/bare/b.jpg", PICTURE)
    demote(line)
    delete(line, other)
    line.collect()
    assert held_by(line, one.blob) == ["far"]
    assert demote(line).progress["total"] == 0, "nothing is moved twice"


def test_variants_move_by_their_own_size_and_the_age_of_their_asset(tmp_path: Path, database_url: str) -> None:
    line = ruled(tmp_path, database_url, {"from": "main", "to": "far", "kind": "variant", "older_than_days": 10})
    asset = line.bring("/a.jpg", PICTURE)
    thumbs = [one.blob for one in line.variants(asset).values() if one.blob is not None]
    age(line, asset, days=11)
    assert demote(line).progress["moved"] == 0, "their bytes are young"
    execute(line, "UPDATE blob SET created_at = created_at - interval '11 days'")
    assert demote(line).progress["moved"] == 2
    assert [held_by(line, one) for one in thumbs] == [["far"]] * 2
    assert held_by(line, asset.blob) == ["main"]
    line.close()


FITTING: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"old", "seen", "large", "png"}),
    ({"older_than_days": 50}, {"old", "seen"}),
    ({"unread_days": 50}, {"old"}),
    ({"older_than_days": 50, "unread_days": 5}, {"old", "seen"}),
    ({"min_bytes": 3000}, {"large"}),
    ({"max_bytes": 3000}, {"old", "seen", "png"}),
    ({"media_type": "image/png"}, {"png"}),
    ({"media_type": "image/[jk]peg"}, {"old", "seen", "large"}),
    ({"media_type": "*/p?g"}, {"png"}),
    ({"media_type": "image_png"}, set()),
    ({"pinned": ["/bare/old", "/bare/png"]}, {"seen", "large"}),
    ({"match": "/bare/l*"}, {"large"}),
    ({"kind": "variant"}, set()),
]


def test_the_database_and_the_rules_agree_on_what_fits(line: Line) -> None:
    bodies = {"old": small(1), "seen": small(2), "large": PICTURE, "png": encoded(photo(9, 9), "PNG")}
    for name, body in bodies.items():
        asset = line.bring(f"/bare/{name}", body)
        if name in ("old", "seen"):
            age(line, asset, days=60, read=10 if name == "seen" else None)
    assert len(PICTURE) > 3000 > max(len(body) for name, body in bodies.items() if name != "large")
    for rule, fit in FITTING:
        given = Demotion.model_validate({**MAIN_TO_FAR, **rule})
        settings = line.settings.model_copy(update={"demotion": (given,)})
        services = replace(line.services, demotions=Demotions.parse(settings, line.services.placements))
        found = savings.survey(services)
        assert found.saved_per_month is None, "the stores do not say what they cost"
        planned = found.rules[0]
        assert (planned.objects, planned.bytes) == (len(fit), sum(len(bodies[name]) for name in fit)), rule
        if not rule.keys() & {"pinned", "match", "kind"} and "[" not in str(rule):
            [(now,)] = execute(line, "SELECT now()")
            counted = services.metadata.demotion.count("main", b"", demotion.filters(services, "main", now))
            assert (counted.objects, counted.size) == (planned.objects, planned.bytes), rule


def test_bytes_that_an_asset_wants_twice_stay_in_two_stores(tmp_path: Path, database_url: str) -> None:
    placement = (Placement(match="/safe/**", store="main", replicas=("far",)),)
    line = ruled(tmp_path, database_url, {"from": "main", "to": "far"}, placement=placement)
    twice, once = line.bring("/safe/a.jpg", PICTURE), line.bring("/bare/b.jpg", small(1))
    assert demote(line).progress["moved"] == 1
    assert (held_by(line, twice.blob), held_by(line, once.blob)) == (["far", "main"], ["far"])
    line.close()


@pytest.mark.parametrize("error", [StoreUnavailable("nobody there"), StoreFull("no space")])
def test_a_store_that_takes_nothing_makes_the_run_wait(
    line: Line, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable
) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)

    def refuse(*_: object, **__: object) -> None:
        raise error

    far = line.services.store("far")
    with monkeypatch.context() as away:
        for name in ("put", "open") if isinstance(error, StoreFull) else ("put", "open", "head"):
            away.setattr(far, name, refuse)
        waiting = job_runs.run(line, demotion.KIND)
    assert waiting.state is JobState.QUEUED
    assert error.detail in str(waiting.error)
    assert held_by(line, asset.blob) == ["main"]
    assert job_runs.go_on(line, waiting.id).progress["moved"] == 1


def test_migrating_the_colder_store_hands_on_what_it_stands_for(line: Line) -> None:
    one, other = line.bring("/bare/a.jpg", PICTURE), line.bring("/bare/b.jpg", PICTURE)
    demote(line)
    job_runs.run(line, migration.KIND, source="far", target="fast", delete_source=True)
    assert homes(line, one.blob) == {"fast": "main"}
    delete(line, other)
    line.collect()
    assert held_by(line, one.blob) == ["fast"]
    line.services.metadata.stores.set_state(StoreState("far", "active", None))


def test_copies_for_faster_reading_are_no_homes(line: Line) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    demote(line)
    replica, _ = line.services.metadata.repairs.ensure(asset.blob.sha256, "main", demotion.LEASE)
    execute(line, "UPDATE replica SET promoted_at = now() WHERE store = 'main'")
    copying.copy(line.services, replica)
    assert held_by(line, asset.blob) == ["far", "main"]
    assert demote(line).progress["total"] == 0, "it is not moved"
    assert line.services.metadata.demotion.leave_to_gc("main", b"", b"\xff" * 32) == 0, "nor does it replace one"


def test_a_run_is_paused_gone_on_with_and_limited(line: Line) -> None:
    bodies = [small(number) for number in range(25)]
    for number, body in enumerate(bodies):
        line.bring(f"/bare/{number}.jpg", body)

    def pause(job: Any) -> None:
        if job.progress:
            line.services.metadata.jobs.wish(job.id, "pause")

    rate = sum(map(len, bodies)) / 1e6 / 1.5
    began = time.monotonic()
    paused = job_runs.run(line, demotion.KIND, pause, max_mb_s=rate)
    assert paused.state is JobState.PAUSED
    assert 0 < paused.progress["moved"] < 25
    assert demotion.start(line.services) is None, "beat leaves to people what people paused"
    line.services.metadata.jobs.wish(paused.id, "resume")
    done = jobs.run(line.services, KINDS, paused.id)
    assert time.monotonic() - began > 1, "all in a second and a half; the first goes at once"
    assert done is not None
    assert (done.state, done.progress["moved"], done.progress["done"]) == (JobState.DONE, 25, 25)
    assert done.progress["done_bytes"] == done.progress["total_bytes"] == done.progress["moved_bytes"]


def test_beat_begins_a_run_when_the_last_one_ended_long_enough_ago(line: Line) -> None:
    begun = demotion.start(line.services)
    assert begun is not None
    assert begun.arguments == {"max_mb_s": None}
    assert demotion.start(line.services) is None, "it has not ended"
    assert jobs.run(line.services, KINDS, begun.id) is not None
    assert demotion.start(line.services) is None, "it ended just now"
    execute(line, "UPDATE job SET finished_at = finished_at - interval '3600 s'")
    work = line.settings.work.model_copy(update={"policy_max_mb_s": 5.0})
    limited = replace(line.services, settings=line.settings.model_copy(update={"work": work}))
    again = demotion.start(limited)
    assert again is not None
    assert again.arguments == {"max_mb_s": 5.0}


def test_without_rules_there_is_nothing_to_do(tmp_path: Path, database_url: str) -> None:
    line = ruled(tmp_path, database_url)
    assert demotion.start(line.services) is None
    with pytest.raises(BadRequest, match="no \\[\\[demotion"):
        registry.create(line.services, demotion.KIND, {})
    line.close()
