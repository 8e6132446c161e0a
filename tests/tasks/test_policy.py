"""Beat asks for a run of the demotion rules, where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.sections import Demotion, Work
from core.settings import Settings
from tasks import maintenance
from tasks.celery_app import schedule
from tests.pipeline.policy_line import MAIN_TO_FAR, ruled

TASK = "maintenance.start_policy"


def test_it_is_asked_for_more_often_than_it_runs() -> None:
    rule = Demotion.model_validate(MAIN_TO_FAR)
    assert TASK not in schedule(Settings())
    assert schedule(Settings(demotion=(rule,)))[TASK]["schedule"] == 60
    assert schedule(Settings(demotion=(rule,), work=Work(policy_seconds=5)))[TASK]["schedule"] == 5


@pytest.mark.usefixtures("application")
def test_the_task_begins_one_run(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ruled(tmp_path, database_url, MAIN_TO_FAR)
    monkeypatch.setattr(maintenance, "services", lambda: line.services)
    for _ in range(2):
        maintenance.start_policy.run()
    assert [job.kind for job in line.services.metadata.jobs.newest(10)] == ["demotion"]
    maintenance.run_jobs.run()
    assert [job.state for job in line.services.metadata.jobs.newest(10)] == ["done"]
    line.close()
