"""`millrace storage rebuild` as an operator runs it: what it refuses, and what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import settings
from core.errors import Misconfigured
from core.sections import Catalogue
from core.settings import Settings
from pipeline.journal.writing import write
from tasks import celery_app
from tests.cli.storage_command import StorageCommand
from tests.pictures import encoded, photo
from tests.pipeline.catalogue_line import lined
from tests.pipeline.line import Line
from tests.pipeline.test_placement import stores


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url)
    for number in range(2):
        made.bring(f"/bare/{number}.jpg", encoded(photo(40 + number, 30), "JPEG"))
        if not number:
            write(made.services)
    yield made
    made.close()


@pytest.fixture
def installation(tmp_path: Path, line: Line) -> StorageCommand:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    ours = {"MILLRACE_HOME": str(tmp_path), "MILLRACE_STORES": json.dumps(stores(tmp_path))}
    return StorageCommand(tmp_path, line, inherited | ours)


def test_what_it_refuses_and_what_it_says(
    installation: StorageCommand,
    database_url: str,
    empty_database_url: str,
    make_database: Callable[[str], str],
    template_database: str,
) -> None:
    code, said, complained = installation.run("rebuild", "--dry-run")
    assert code == 1, "one is not written down"
    assert complained == "", "a dry run asks no database"
    assert "1 assets and 0 deleted ones would be recorded." in said
    assert "are named by no segment:\n  main: " in said
    assert not (installation.home / "postgres").exists(), "a dry run makes no database"
    code, said, complained = installation.run("rebuild", MILLRACE_DATABASE_URL=database_url)
    assert (code, said) == (1, "")
    assert "the database is not empty: asset has rows" in complained
    code, _, complained = installation.run("rebuild", MILLRACE_DATABASE_URL=empty_database_url)
    assert (code, "millrace migrate" in complained) == (2, True)
    other = make_database(template_database)
    code, said, complained = installation.run("rebuild", "--json", MILLRACE_DATABASE_URL=other)
    report = json.loads(said)
    assert (code, complained) == (1, "")
    assert [report[name] for name in ("assets", "replicas", "missing", "unnamed", "complete")] == [1, 1, 0, 1, False]
    assert [one["size"] for one in report["unnamedObjects"]] == [report["unnamedBytes"]]


def test_settings_say_how_often_and_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for seconds in (5.0, 30.0):
        scheduled = celery_app.schedule(Settings(catalogue=Catalogue(seconds=seconds)))
        assert scheduled["maintenance.write_catalogue"]["schedule"] == seconds
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    for name, value, complaint in (("STORE", "nowhere", "no store is called 'nowhere'"), ("SECONDS", "61", "seconds")):
        with monkeypatch.context() as patched:
            patched.setenv(f"MILLRACE_CATALOGUE__{name}", value)
            with pytest.raises(Misconfigured, match=complaint):
                settings.load()
