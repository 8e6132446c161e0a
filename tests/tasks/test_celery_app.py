"""The broker settings that the design rests on, and tasks that take any message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.sections import Work
from core.settings import Settings
from tasks import celery_app, commands
from tasks.celery_app import app, configuration


def made(**changes: Any) -> dict[str, Any]:
    return configuration(Settings(**{"redis_url": "redis://127.0.0.1:1/0", **changes}), "prefix:")


def test_messages_are_hints_and_json_only() -> None:
    found = made()
    assert found["accept_content"] == ["json"]
    assert found["task_serializer"] == "json"
    assert found["task_acks_late"]
    assert found["task_reject_on_worker_lost"]
    assert found["task_ignore_result"]
    assert found["worker_prefetch_multiplier"] == 1
    assert "result_backend" not in found


def test_a_message_becomes_visible_again_only_after_its_task_must_have_ended() -> None:
    found = made(work=Work(soft_time_limit_seconds=10, time_limit_seconds=20))
    assert (found["task_soft_time_limit"], found["task_time_limit"]) == (10, 20)
    assert found["broker_transport_options"]["visibility_timeout"] > found["task_time_limit"]


def test_nothing_waits_for_redis_without_an_end() -> None:
    options = made()["broker_transport_options"]
    assert options["socket_timeout"] <= 5
    assert options["socket_connect_timeout"] <= 5


def test_every_key_begins_with_the_prefix() -> None:
    assert made()["broker_transport_options"]["global_keyprefix"] == "prefix:"


def test_a_unix_socket_is_spelled_as_kombu_wants_it() -> None:
    assert made(redis_url="unix:///run/valkey.sock")["broker_url"] == "redis+socket:///run/valkey.sock"


def test_no_message_carries_a_time_of_the_senders_clock() -> None:
    for entry in celery_app.schedule(Settings()).values():
        assert not {"expires", "eta", "countdown"} & entry["options"].keys()


@pytest.mark.usefixtures("application")
def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    names = set(app.tasks)
    assert {entry["task"] for entry in celery_app.schedule(Settings()).values()} <= names
    assert {"ingest", "derive"} <= names


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("word", ["", "x", "../../etc/passwd", "0" * 5000, None, 7, "not-a-uuid"])
def test_a_message_that_is_no_id_is_dropped(word: object) -> None:
    from tasks import derive, ingest

    ingest.run.run(word)
    derive.run.run(word)


def test_importing_the_application_reads_no_settings(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("not toml")
    environment = {"MILLRACE_CONFIG": str(tmp_path / "broken.toml"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", "import tasks.celery_app, tasks.ingest, app.web"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_workers_listen_to_their_queues(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, work=Work(ingest_concurrency=3))
    ingest, variants = commands.worker("ingest", settings), commands.worker("variants", settings)
    assert ingest[ingest.index("-c") + 1] == "3"
    assert ingest[ingest.index("-Q") + 1].startswith("ingest.")
    assert variants[variants.index("-Q") + 1] == "variants.interactive,variants.eager"
    interactive = commands.worker("interactive", settings)
    assert interactive[interactive.index("-Q") + 1] == "variants.interactive"
    maintenance = commands.worker("maintenance", settings)
    assert maintenance[maintenance.index("-Q") + 1] == "maintenance"
    assert maintenance[maintenance.index("-P") + 1] == "threads"
    assert ingest[: len(commands.celery())] == commands.celery()
