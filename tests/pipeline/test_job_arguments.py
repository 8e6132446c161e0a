"""The arguments of all kinds of jobs are refused in one way: the name of what is wrong comes first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import BadRequest
from pipeline.jobs import gc, migration, verification
from pipeline.jobs.registry import create
from tests.pipeline.line import Line
from tests.pipeline.test_placement import lined

GOOD: dict[str, dict[str, object]] = {
    migration.KIND: {"source": "main", "target": "far"},
    verification.KIND: {},
    gc.KIND: {},
}
WITH_STORES = [verification.KIND, gc.KIND]
WITH_A_RATE = [migration.KIND, verification.KIND]


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


def refusal(line: Line, kind: str, **given: object) -> str:
    with pytest.raises(BadRequest) as refused:
        create(line.services, kind, {**GOOD[kind], **given})
    return refused.value.detail


def test_what_is_wrong_is_named_first_whatever_the_kind(line: Line) -> None:
    for kind in GOOD:
        assert refusal(line, kind, hurry=1).startswith("hurry: "), kind
    for kind in WITH_STORES:
        assert refusal(line, kind, stores="main").startswith("stores: "), kind
        assert refusal(line, kind, stores=[1]).startswith("stores.0: "), kind
        assert "no store is called 'nowhere'" in refusal(line, kind, stores=["nowhere"]), kind
    for kind in WITH_A_RATE:
        for bad in ("1", 0, float("inf"), float("nan"), True):
            assert refusal(line, kind, max_mb_s=bad).startswith("max_mb_s: "), (kind, bad)


def test_the_same_work_is_one_job_however_it_is_said(line: Line) -> None:
    for kind in WITH_STORES:
        jobs = [create(line.services, kind, {"stores": said}) for said in (["main", "far"], ("far", "main", "far"))]
        assert len({job.id for job in jobs}) == 1
        everything = [create(line.services, kind, said) for said in ({}, {"stores": ["far", "fast", "main"]})]
        assert len({job.id for job in everything}) == 1
