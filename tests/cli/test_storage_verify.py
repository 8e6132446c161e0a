"""`millrace storage verify` and `millrace storage gc` as an operator runs them: what they say, and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.model import Asset
from core.sections import Placement
from storage.object_keys import MARKER
from storage.recognised import bare
from tests.cli.storage_command import StorageCommand
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import contents
from tests.pipeline.test_orphans import keys, orphan, rows
from tests.pipeline.test_placement import held_by, lined, read, stores


class Installation(StorageCommand):
    def verify(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, said, complained = self.run("verify", "--json", *words)
        assert said, complained
        return code, json.loads(said)

    def file(self, asset: Asset, store: str) -> Path:
        [found] = (self.home / store).rglob(f"{asset.blob.sha256.hex()}.*")
        return found


@pytest.fixture
def installation(tmp_path: Path, database_url: str) -> Iterator[Installation]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    ours = {
        "HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "STORES": json.dumps(stores(tmp_path)),
        "PLACEMENT": json.dumps([{"store": "main", "replicas": ["far"]}]),
        "WORK__LEASE_SECONDS": "2",
        "WORK__LEASE_RENEWAL_SECONDS": "0.5",
    }
    line = lined(tmp_path, database_url, Placement(store="main", replicas=("far",)))
    yield Installation(tmp_path, line, inherited | {f"MILLRACE_{name}": value for name, value in ours.items()})
    line.close()


@pytest.fixture
def assets(installation: Installation) -> list[Asset]:
    return [
        installation.line.bring(f"/bare/{number}.jpg", encoded(photo(40 + number, 30), "JPEG")) for number in range(4)
    ]


def test_what_is_right_is_said_to_be(installation: Installation, assets: list[Asset]) -> None:
    code, found = installation.verify()
    assert code == 0
    assert (found["kind"], found["state"], found["good"]) == ("verify", "done", True)
    assert (found["quarantined"], found["unknownStores"]) == ([], [])
    assert found["progress"]["doneBytes"] == 2 * sum(asset.blob.size for asset in assets)


def test_what_can_be_mended_is_and_the_rest_is_told(installation: Installation, assets: list[Asset]) -> None:
    mended, lost = assets[:2]
    installation.file(mended, "main").unlink()
    code, found = installation.verify("--structure-only", "--store", "main")
    assert (code, found["good"]) == (0, True)
    assert (found["progress"]["missing"], found["progress"]["repaired"]) == (1, 1)
    assert held_by(installation.line, mended.blob) == ["far", "main"]
    for store in ("main", "far"):
        installation.file(lost, store).write_bytes(b"?" * lost.blob.size)
    code, found = installation.verify()
    assert (code, found["good"], found["progress"]["corrupt"]) == (1, False, 2)
    assert found["quarantined"] == [
        {
            "sha256": lost.blob.sha256.hex(),
            "size": lost.blob.size,
            "mediaType": "image/jpeg",
            "stores": {"far": "corrupt", "main": "corrupt"},
            "paths": ["/bare/1.jpg"],
        }
    ]
    code, said, _ = installation.run("verify", "--structure-only")
    assert code == 1
    assert f"{lost.blob.sha256.hex()} ({lost.blob.size:,} bytes): corrupt in far, corrupt in main" in said
    assert "needed by /bare/1.jpg" in said


def test_killed_it_is_gone_on_with_by_the_same_command(
    installation: Installation, assets: list[Asset], tmp_path: Path
) -> None:
    installation.file(assets[3], "far").unlink()
    armed = tmp_path / "failpoints"
    armed.mkdir()
    (armed / "verify.after-read").write_text("kill")
    assert installation.run("verify", MILLRACE_FAILPOINTS=str(armed))[0] == -signal.SIGKILL
    [dead] = installation.line.services.metadata.jobs.newest(10)
    code, found = installation.verify()
    assert (code, found["id"], found["good"]) == (0, str(dead.id), True)
    assert held_by(installation.line, assets[3].blob) == ["far", "main"]


def test_interrupted_it_is_paused_and_gone_on_with(installation: Installation) -> None:
    large = installation.line.bring("/bare/large.jpg", encoded(photo(1800, 1200), "JPEG"))
    assert large.blob.size > 30_000, "read at a kB a second, from two stores"
    with installation.start("verify", "--max-mb-s", "0.001") as process:
        deadline = time.monotonic() + 60
        while not any(job.progress for job in installation.line.services.metadata.jobs.newest(10)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "verify paused" in said
    assert "millrace storage jobs resume" in complained


def test_gc_removes_orphans_once_the_store_is_identified(installation: Installation, assets: list[Asset]) -> None:
    line = installation.line
    kept = keys(line)
    key = orphan(line)
    bare(line.services.store("main")).delete([MARKER])
    code, _, complained = installation.run("gc", "--store", "main")
    assert code == 1
    assert "millrace storage identify main" in complained
    assert key in {path.name for path in (installation.home / "main").rglob("*")}
    assert installation.run("identify", "nowhere")[0] == 1
    code, said, _ = installation.run("identify", "main")
    assert (code, "main carries the marker" in said) == (0, True)
    assert f"{len(kept)} of {len(kept)} recorded objects" in said
    code, said, _ = installation.run("gc", "--store", "main", "--json")
    assert code == 0
    assert (json.loads(said)["progress"]["orphans"], json.loads(said)["progress"]["removed"]) == (1, 1)
    assert keys(line) == kept
    assert all(read(line, asset) for asset in assets)


def test_a_dry_run_of_gc_changes_nothing(installation: Installation, assets: list[Asset]) -> None:
    orphan(installation.line)
    before = contents(installation.home), rows(installation.line)
    code, said, _ = installation.run("gc", "--dry-run", "--json")
    assert code == 0
    found = json.loads(said)
    assert (found["orphans"], found["orphanBytes"], found["letGo"]) == (1, 11, 0)
    assert found["identified"] == {"far": True, "fast": False, "main": True}
    code, said, _ = installation.run("gc", "--dry-run")
    assert "1 orphans (0.0 MB) would go" in said
    assert (contents(installation.home), rows(installation.line)) == before
