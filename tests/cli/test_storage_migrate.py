"""`millrace storage migrate` as an operator runs it: beside whatever else runs, interrupted, killed, and run again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from core.model import Asset
from tests.cli.storage_command import StorageCommand
from tests.pictures import encoded, photo
from tests.pipeline.test_placement import held_by, lined, read, stores

MOVE = ("migrate", "--from", "main", "--to", "far")


class Installation(StorageCommand):
    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("jobs", "--json")[1])
        return found

    def bring(self, count: int) -> list[tuple[Asset, bytes]]:
        bodies = [encoded(photo(40 + number, 30), "JPEG") for number in range(count)]
        return [(self.line.bring(f"/bare/{number}.jpg", body), body) for number, body in enumerate(bodies)]

    def until_under_way(self) -> None:
        deadline = time.monotonic() + 60
        while not any(job.progress for job in self.line.services.metadata.jobs.newest(10)):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def connections(self, said: str = "") -> set[int]:
        """Return the server's pids for the connections of other processes whose last statement contains `said`."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        words = f"{query} AND position('{said}' IN query) > 0"
        return set(self.line.services.metadata.database.read(lambda one: one.exec_driver_sql(words).scalars().all()))

    def everything(self) -> tuple[object, ...]:
        """All rows and all files of the stores."""
        url = self.environment["MILLRACE_DATABASE_URL"]
        names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        connection = psycopg2.connect(url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(names)
                tables = [name for (name,) in cursor.fetchall()]
                rows = []
                for name in tables:
                    cursor.execute(f'SELECT t::text FROM "{name}" t ORDER BY 1')
                    rows.append((name, cursor.fetchall()))
        finally:
            connection.close()
        files = sorted(path for name in ("main", "far", "fast") for path in (self.home / name).rglob("*"))
        return rows, [(path, path.read_bytes() if path.is_file() else b"") for path in files]


@pytest.fixture
def installation(tmp_path: Path, database_url: str) -> Iterator[Installation]:
    config = tmp_path / "millrace.toml"
    config.write_text(
        "[work]\nlease_seconds = 2\nlease_renewal_seconds = 0.5\n"
        + "".join(
            f'[stores.{name}]\nkind = "filesystem"\nroot = "{given["root"]}"\n'
            for name, given in stores(tmp_path).items()
        )
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    ours = {"HOME": str(tmp_path), "CONFIG": str(config), "DATABASE_URL": database_url}
    line = lined(tmp_path, database_url)
    yield Installation(tmp_path, line, inherited | {f"MILLRACE_{name}": value for name, value in ours.items()})
    line.close()


def test_a_dry_run_changes_nothing(installation: Installation) -> None:
    brought = installation.bring(3)
    before = installation.everything()
    code, said, _ = installation.run(*MOVE, "--delete-source", "--dry-run", "--json")
    assert code == 0
    total = sum(len(body) for _, body in brought)
    assert json.loads(said) == {"dryRun": True, "objects": 3, "bytes": total}
    assert installation.everything() == before


def test_it_moves_everything_and_says_what(installation: Installation) -> None:
    brought = installation.bring(5)
    code, said, _ = installation.run(*MOVE, "--delete-source", "--json")
    assert code == 0
    job = json.loads(said)
    assert (job["kind"], job["state"], job["error"]) == ("migrate", "done", None)
    assert job["arguments"] == {"source": "main", "target": "far", "deleteSource": True, "maxMbS": None}
    progress = job["progress"]
    assert (progress["total"], progress["done"], progress["copied"], progress["removed"]) == (5, 5, 5, 5)
    assert progress["doneBytes"] == progress["totalBytes"] == sum(len(body) for _, body in brought)
    for asset, body in brought:
        assert held_by(installation.line, asset.blob) == ["far"]
        assert read(installation.line, asset) == body
    assert list(installation.line.services.store("main").scan()) == []


def test_killed_it_is_gone_on_with_by_the_same_command(installation: Installation, tmp_path: Path) -> None:
    brought = installation.bring(6)
    armed = tmp_path / "failpoints"
    armed.mkdir()
    (armed / "migrate.after-copy").write_text("kill")
    code, _, _ = installation.run(*MOVE, "--delete-source", MILLRACE_FAILPOINTS=str(armed))
    assert code == -signal.SIGKILL
    [dead] = installation.jobs()
    code, said, _ = installation.run(*MOVE, "--delete-source", "--json")
    assert code == 0
    assert json.loads(said)["id"] == dead["id"]
    assert list(installation.line.services.store("main").scan()) == []
    assert all(read(installation.line, asset) == body for asset, body in brought)


def test_interrupted_it_is_paused_and_says_how_to_go_on(installation: Installation) -> None:
    installation.bring(30)
    with installation.start(*MOVE, "--max-mb-s", "0.01") as process:
        installation.until_under_way()
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "migrate paused" in said
    [job] = installation.jobs()
    assert f"millrace storage jobs resume {job['id']}" in complained
    assert (job["state"], job["wish"]) == ("paused", None)
    assert 0 < job["progress"]["copied"] < 30
    assert installation.run("jobs", "cancel", job["id"])[0] == 0
    assert installation.jobs()[0]["state"] == "cancelled"
    assert installation.run("jobs", "resume", job["id"])[0] == 1


def test_a_second_command_watches_and_a_pause_ends_both(installation: Installation) -> None:
    installation.bring(30)
    words = (*MOVE, "--max-mb-s", "0.001")
    with installation.start(*words) as working:
        installation.until_under_way()
        [job] = installation.jobs()
        others = installation.connections()
        with installation.start(*words) as watching:
            deadline = time.monotonic() + 60
            while not installation.connections("FROM job") - others:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert installation.run("jobs", "pause", job["id"])[0] == 0
            assert "migrate paused" in watching.communicate(timeout=60)[0]
        working.communicate(timeout=60)
    assert (working.returncode, watching.returncode) == (130, 130)
    assert len(installation.jobs()) == 1


def test_what_could_not_be_moved_is_counted_and_said(installation: Installation) -> None:
    (asset, _), *_ = installation.bring(3)
    [replica] = installation.line.services.metadata.blobs.replicas(asset.blob.sha256)
    installation.line.services.store("main").delete([replica.key])
    code, said, complained = installation.run(*MOVE, "--delete-source")
    assert code == 1
    assert all(word in said for word in ("copied 2", "removed 2", "failed 1"))
    assert "no healthy replica" in complained


def test_a_job_that_fails_says_why(installation: Installation) -> None:
    code, _, complained = installation.run("migrate", "--from", "main", "--to", "nowhere")
    assert (code, complained) == (1, "millrace: no store is called 'nowhere' (there is: main, fast, far)\n")
    created = installation.line.services.metadata.jobs.create(
        "migrate", {"source": "main", "target": "far", "delete_source": False, "max_mb_s": None}
    )
    states = {"MILLRACE_STORES__FAR__STATE": "read-only"}
    code, _, complained = installation.run(*MOVE, **states)
    assert code == 1
    assert "'far' is read-only" in complained
    assert installation.jobs()[0]["state"] == created.state


def test_a_store_is_drained_and_made_active_again(installation: Installation) -> None:
    said = installation.line.services.metadata.stores.states
    assert installation.run("state", "main", "draining")[0] == 1
    assert installation.run("state", "main", "draining", "--successor", "far")[0] == 0
    assert (said()["main"].state, said()["main"].successor) == ("draining", "far")
    assert installation.run("state", "main", "active")[0] == 0
    assert (said()["main"].state, said()["main"].successor) == ("active", None)
