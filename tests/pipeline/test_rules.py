"""Rules that differ between processes: who removes what, what a new rule changes, and who is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.health import Health
from core.errors import BadRequest
from core.model import Asset, JobState
from core.sections import Demotion, Placement
from pipeline import maintenance
from pipeline.doctor import examine
from pipeline.jobs import applying, demotion, registry, verification
from pipeline.jobs import runner as jobs
from pipeline.replicas.quarantine import verdict
from pipeline.rules.in_force import difference, rules_of
from pipeline.services import Services
from storage.registry import options_of
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import go_on, killed, run
from tests.pipeline.line import Line
from tests.pipeline.test_placement import PICTURE, delete, held_by, lined, stores

TWICE = Placement(store="main", replicas=("far",))


@pytest.fixture
def old(tmp_path: Path, database_url: str) -> Iterator[Line]:
    """Return a line with the settings of yesterday: everything in `main`."""
    line = lined(tmp_path, database_url)
    yield line
    line.close()


@pytest.fixture
def new(tmp_path: Path, database_url: str) -> Iterator[Line]:
    """Return a line with the settings of today: everything is to be in two stores."""
    line = lined(tmp_path, database_url, TWICE)
    yield line
    line.close()


def look_again(line: Line) -> None:
    """Let the time pass for which a worker with other rules leaves a blob alone."""
    line.services.metadata.database.run(
        lambda connection: connection.exec_driver_sql("UPDATE blob SET gc_after = now() WHERE gc_after IS NOT NULL")
    )


@pytest.mark.parametrize("in_force", ["old", "new"])
@pytest.mark.parametrize("first", ["old", "new"])
def test_only_the_rules_in_force_remove_a_replica(old: Line, new: Line, in_force: str, first: str) -> None:
    lines = {"old": old, "new": new}
    lines[in_force].put_rules_in_force()
    stays, goes = new.bring("/a.jpg", PICTURE), new.bring("/b.jpg", PICTURE)
    delete(new, goes)
    for name in (first, *lines):
        lines[name].collect()
        look_again(old)
    assert held_by(new, stays.blob) == (["far", "main"] if in_force == "new" else ["main"])


def test_what_nothing_refers_to_goes_under_any_rules(old: Line, new: Line) -> None:
    new.put_rules_in_force()
    gone = new.bring("/a.jpg", PICTURE)
    delete(new, gone)
    old.collect()
    assert [list(new.services.store(name).scan()) for name in ("main", "far")] == [[], []]


@pytest.mark.parametrize("asks", ["collects", "verifies", "would move"])
def test_rules_are_in_force_before_anything_lies_by_them(old: Line, new: Line, asks: str) -> None:
    """Put no rules in force by a command, and let the first process that asks have other rules."""
    stays, goes = new.bring("/a.jpg", PICTURE), new.bring("/b.jpg", PICTURE)
    delete(new, goes)
    acts: dict[str, Callable[[], object]] = {
        "collects": old.collect,
        "verifies": lambda: run(old, verification.KIND),
        "would move": lambda: demotion.start(old.services),
    }
    acts[asks]()
    look_again(old)
    old.collect()
    assert held_by(new, stays.blob) == ["far", "main"]
    assert "(placement)" in (difference(old.services.metadata.rules, old.services.rules) or "")
    assert difference(new.services.metadata.rules, new.services.rules) is None


def test_the_first_who_asks_puts_its_rules_in_force(old: Line, new: Line) -> None:
    assert difference(new.services.metadata.rules, new.services.rules) is None
    new.collect()
    new.bring("/a.jpg", PICTURE)
    delete(new, new.bring("/b.jpg", PICTURE))
    new.collect()
    assert difference(new.services.metadata.rules, new.services.rules) is None
    assert "(placement)" in (difference(old.services.metadata.rules, old.services.rules) or "")


def test_other_bounds_evict_nothing_and_other_rules_demote_nothing(tmp_path: Path, database_url: str) -> None:
    moves = (Demotion.model_validate({"from": "main", "to": "far"}),)
    made = lined(tmp_path, database_url, fast={"tier": "hot", "promote_up_to": 1 << 20})
    other = Line(tmp_path, database_url, stores=stores(tmp_path), demotion=moves)
    made.put_rules_in_force()
    asset = made.bring("/a.jpg", PICTURE)
    made.services.metadata.tiers.promote([asset.blob.sha256], "fast", up_to=1 << 20, max_bytes=1 << 20)
    assert maintenance.evict_copies(other.services) == 0
    assert demotion.start(other.services) is None
    with pytest.raises(BadRequest, match="apply-rules"):
        registry.create(other.services, demotion.KIND, {})
    job = other.services.metadata.jobs.create(demotion.KIND, {"max_mb_s": None})
    waits = jobs.run(other.services, registry.KINDS, job.id)
    assert waits is not None
    assert waits.state is JobState.QUEUED
    assert "other-rules" in (waits.error or "")
    other.put_rules_in_force()
    assert maintenance.evict_copies(other.services) == 1
    assert demotion.start(other.services) == other.services.metadata.jobs.find(job.id) or waits
    made.close()
    other.close()


def test_new_rules_wait_for_a_collector_that_goes_by_the_old_ones(
    old: Line, new: Line, arm: Callable[..., None]
) -> None:
    old.put_rules_in_force()
    asset = new.bring("/a.jpg", PICTURE)
    delete(new, new.bring("/b.jpg", PICTURE))
    arm("collect.before-commit", "sleep 1.5")
    collecting = threading.Thread(target=old.collect)
    collecting.start()
    while not _is_held(new):
        assert collecting.is_alive()
    new.put_rules_in_force()
    assert held_by(new, asset.blob) == ["main"], "that was decided before"
    collecting.join()
    done = run(new, applying.KIND)
    assert done.progress["copied"] > 0
    assert held_by(new, asset.blob) == ["far", "main"]


def _is_held(line: Line) -> bool:
    """Return whether a transaction holds the rules."""
    free = "SELECT count(*) FROM (SELECT FROM placement_rules FOR UPDATE SKIP LOCKED) AS free"
    return bool(line.services.metadata.database.run(lambda connection: connection.exec_driver_sql(free).scalar()) == 0)


def brought(line: Line, count: int = 5) -> list[Asset]:
    return [line.bring(f"/bare/{n}.jpg", encoded(photo(60 + n, 40), "JPEG")) for n in range(count)]


def test_a_new_rule_reaches_what_is_there(old: Line, new: Line) -> None:
    old.collect()
    old.put_rules_in_force()
    assets = brought(old)
    found = applying.survey(new.services)
    assert (found.objects, found.copies, found.surplus) == (5, 5, 0)
    assert found.copied_bytes == sum(asset.blob.size for asset in assets)
    with pytest.raises(BadRequest, match="apply-rules"):
        registry.create(new.services, applying.KIND, {})
    new.put_rules_in_force()
    job = run(new, applying.KIND)
    assert (job.state, job.progress["done"], job.progress["total"]) == (JobState.DONE, 5, 5)
    assert (job.progress["copied"], job.progress["failed"], job.progress["left_to_gc"]) == (5, 0, 0)
    assert {tuple(held_by(new, asset.blob)) for asset in assets} == {("far", "main")}
    assert run(new, applying.KIND).progress["copied"] == 0
    old.put_rules_in_force()
    assert applying.survey(old.services).surplus == 5
    assert run(old, applying.KIND).progress["left_to_gc"] == 5
    new.collect()
    assert {tuple(held_by(new, asset.blob)) for asset in assets} == {("far", "main")}
    look_again(old)
    old.collect()
    assert {tuple(held_by(old, asset.blob)) for asset in assets} == {("main",)}


@pytest.mark.parametrize("step", ["job.after-step", "apply.after-want", "copy.after-put", "apply.after-copy"])
def test_killed_at_any_step_it_is_gone_on_with(
    old: Line, new: Line, tmp_path: Path, arm: Callable[..., None], step: str
) -> None:
    assets = brought(old)
    new.put_rules_in_force()
    created = registry.create(new.services, applying.KIND, {})
    arm(step, "kill")
    killed(new, tmp_path, created)
    assert go_on(new, created.id).state is JobState.DONE
    assert {tuple(held_by(new, asset.blob)) for asset in assets} == {("far", "main")}


def test_a_job_for_rules_that_are_over_ends_and_one_for_others_rules_waits(old: Line, new: Line) -> None:
    brought(old)
    new.put_rules_in_force()
    job = registry.create(new.services, applying.KIND, {})
    waits = jobs.run(old.services, registry.KINDS, job.id)
    assert waits is not None
    assert (waits.state, "other-rules" in (waits.error or "")) == (JobState.QUEUED, True)
    old.put_rules_in_force()
    ended = go_on(new, job.id)
    assert ended.state is JobState.FAILED
    assert "meanwhile" in (ended.error or "")


def test_verify_asks_for_what_rules_lack(old: Line, new: Line) -> None:
    assets = brought(old)
    new.put_rules_in_force()
    unlike = run(old, verification.KIND)
    assert unlike.progress["other_rules"]
    assert not verdict(old.services, unlike).good
    assert {tuple(held_by(new, asset.blob)) for asset in assets} == {("main",)}
    done = run(new, verification.KIND, structure_only=True)
    assert (done.progress["wanted"], done.progress["repaired"], done.progress["other_rules"]) == (5, 5, False)
    assert verdict(new.services, done).good
    assert {tuple(held_by(new, asset.blob)) for asset in assets} == {("far", "main")}


def test_doctor_and_readyz_say_that_a_host_has_other_rules(old: Line, new: Line) -> None:
    assert examine.placement_rules(old.services.metadata.rules, old.services.settings).grade.value == "ok"
    for mine, other in ((new, old), (old, new)):
        mine.put_rules_in_force()
        assert _told(mine.services) == ("ok", False)
        assert _told(other.services) == ("problem", True)


def _told(services: Services) -> tuple[str, bool]:
    finding = examine.placement_rules(services.metadata.rules, services.settings)
    health, _ = Health(services).look()
    return finding.grade.value, health["postgres"].ok and "apply-rules" in health["postgres"].detail


MATTERS: dict[str, dict[str, Any]] = {
    "a rule": {"placement": (TWICE,)},
    "how many": {"placement": (TWICE, Placement(match="/x/**", store="far"))},
    "a demotion": {"demotion": (Demotion.model_validate({"from": "main", "to": "far"}),)},
    "the default": {"default_store": "far"},
    "a store": {"stores": {name: {"kind": "memory"} for name in ("main", "fast")}},
    "its state": {"stores": {"main": {"kind": "memory"}, "fast": {"kind": "memory", "state": "read-only"}, "far": {}}},
    "its bound": {
        "stores": {"main": {"kind": "memory"}, "fast": {"kind": "memory", "tier": "hot", "promote_up_to": 9}, "far": {}}
    },
}
NO_MATTER: dict[str, dict[str, Any]] = {
    "where a store is": {"stores": {name: {"kind": "memory"} for name in ("far", "main", "fast")}},
    "who is read first": {"stores": {name: {"kind": "memory", "priority": 7} for name in ("far", "main", "fast")}},
    "a default that is said": {"placement": ()},
}


@pytest.mark.parametrize("change", [*MATTERS, *NO_MATTER])
def test_the_hash_is_of_what_decides(tmp_path: Path, database_url: str, old: Line, change: str) -> None:
    changes = {**MATTERS, **NO_MATTER}[change]
    named = {name: {"kind": "memory", **given} for name, given in changes.get("stores", {}).items()}
    other = old.settings.model_copy(update={**changes, **({"stores": named} if named else {})})
    other = other.model_copy(update={"staging": other.staging.model_copy(update={"ephemeral": True})})
    fingerprint = rules_of(other, options_of(other)).fingerprint
    assert (fingerprint != old.services.rules.fingerprint) == (change in MATTERS)
