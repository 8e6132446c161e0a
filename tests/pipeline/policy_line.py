"""A line with demotion rules, and a clock for its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from core.model import Asset, BlobFacts, Job, JobState
from core.sections import Demotion, Placement
from pipeline.jobs import demotion
from tests.pipeline import job_runs
from tests.pipeline.line import Line
from tests.pipeline.test_placement import stores

TIERS: Mapping[str, dict[str, Any]] = {"fast": {"tier": "hot"}, "far": {"tier": "cold"}}
MAIN_TO_FAR: Mapping[str, Any] = {"from": "main", "to": "far", "match": "/bare/**"}


def ruled(home: Path, database_url: str, *rules: Mapping[str, Any], placement: tuple[Placement, ...] = ()) -> Line:
    given = tuple(Demotion.model_validate(rule) for rule in rules)
    return Line(home, database_url, stores=stores(home, **TIERS), placement=placement, demotion=given)


def demote(line: Line) -> Job:
    """A whole run of the rules."""
    done = job_runs.run(line, demotion.KIND)
    assert (done.state, done.error) == (JobState.DONE, None)
    return done


def execute(line: Line, statement: str, **values: object) -> list[Any]:
    def run(connection: Any) -> list[Any]:
        found = connection.execute(text(statement), values)
        return list(found.all()) if found.returns_rows else []

    return line.services.metadata.database.run(run)


def age(line: Line, asset: Asset, *, days: float, read: float | None = None) -> None:
    """The asset was accepted, and its bytes stored, so many days ago; they were read last `read` days ago."""
    since = {"id": asset.id, "sha256": asset.blob.sha256, "days": days, "read": read}
    execute(line, "UPDATE asset SET accepted_at = now() - :days * interval '1 day' WHERE id = :id", **since)
    execute(line, "UPDATE blob SET created_at = now() - :days * interval '1 day' WHERE sha256 = :sha256", **since)
    if read is not None:
        last = "UPDATE blob SET last_read_at = now() - :read * interval '1 day' WHERE sha256 = :sha256"
        execute(line, last, **since)


def homes(line: Line, blob: BlobFacts) -> dict[str, str]:
    """The stores that hold it for a rule, healthy or not, and what each stands for."""
    query = "SELECT store, coalesce(stands_for, store) FROM replica WHERE blob = :blob AND promoted_at IS NULL"
    return dict(tuple(row) for row in execute(line, query, blob=blob.sha256))
