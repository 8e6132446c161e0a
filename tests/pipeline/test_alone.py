"""What the run alone leaves behind: its log, its error, and a verdict that no failing disk makes."""

from __future__ import annotations

import errno
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from core.model import Asset, VariantState
from core.sections import Variants
from pipeline.uploads.ingest import Outcome
from pipeline.variants import derive
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(), "JPEG")


@pytest.fixture
def fleet(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    made = Line(tmp_path, database_url, variants=Variants(eager="fleet"))
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_DATABASE_URL", database_url)
    monkeypatch.setenv("MILLRACE_WORK__BACKOFF_SECONDS", "0.01")
    monkeypatch.setenv("MILLRACE_WORK__BACKOFF_CAP_SECONDS", "0.05")
    yield made
    made.close()


def suspect(line: Line) -> Asset:
    """Bring an asset whose variants run alone from now on."""
    asset = line.bring("/a.jpg", PICTURE)
    while min(one.attempts for one in line.variants(asset).values()) < line.settings.work.max_unfinished:
        line.services.metadata.variants.lease(asset.blob.sha256, timedelta(seconds=0.01))
        time.sleep(0.02)
    return asset


def test_the_error_of_the_run_that_decides_is_in_the_log_with_its_stack(
    fleet: Line, arm: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    asset = suspect(fleet)
    arm("alone.start", "raise", always=True)
    fleet.derive(asset.blob.sha256)
    variants = fleet.variants(asset).values()
    assert {one.state for one in variants} == {VariantState.FAILED}
    assert {one.failure.detail.rpartition(": ")[2] for one in variants if one.failure} == {"RuntimeError"}
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    stacks = [one["exc_info"] for one in said if one["message"] == "a run alone failed"]
    assert len(stacks) == len(variants)
    assert all("Traceback" in stack and "a failpoint says so" in stack for stack in stacks)


@pytest.mark.parametrize(("point", "fault"), [("alone.start", "signal SIGBUS"), ("decode.before-read", "errno EIO")])
def test_a_disk_that_fails_under_a_picture_is_no_fault_of_the_picture(
    fleet: Line, arm: Callable[..., None], tmp_path: Path, point: str, fault: str
) -> None:
    asset = suspect(fleet)
    arm(point, fault, always=True)
    for _ in range(2):
        derive.derive(fleet.services, asset.blob.sha256)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.PENDING}
    (tmp_path / "failpoints" / point).unlink()
    deadline = time.monotonic() + 60
    while {one.state for one in fleet.variants(asset).values()} != {VariantState.READY}:
        assert time.monotonic() < deadline
        derive.derive(fleet.services, asset.blob.sha256)
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("point", "fault", "unfinished"), [("staging.before-read", "errno EIO", 0), ("alone.start", "signal SIGBUS", 3)]
)
def test_a_disk_that_fails_under_an_upload_makes_it_wait(
    fleet: Line, arm: Callable[..., None], tmp_path: Path, point: str, fault: str, unfinished: int
) -> None:
    manifest = fleet.accept("/a.jpg", PICTURE)
    for _ in range(unfinished):
        claim = fleet.services.staging.claim(manifest.id)
        assert claim is not None
        with claim:
            claim.start()
    arm(point, fault, always=True)
    for _ in range(2):
        assert fleet.ingest(manifest.id) is Outcome.WAITING
    entry = fleet.services.staging.look(manifest.id)
    assert entry is not None
    assert entry.attempts.failure is not None
    assert entry.attempts.failure.kind in ("unavailable", "store-unavailable")
    assert entry.attempts.due_at is not None
    (tmp_path / "failpoints" / point).unlink()
    assert fleet.ingest(manifest.id) is Outcome.STORED


@pytest.mark.parametrize("fault", ["settings", "processes"])
def test_a_host_that_cannot_begin_a_run_alone_says_nothing_of_the_picture(
    fleet: Line, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Break the settings of the host after its processes started, or leave it no process for the run."""
    asset = suspect(fleet)
    with monkeypatch.context() as patch:
        if fault == "settings":
            patch.setenv("MILLRACE_WEB__WORKERS", "none")
        else:
            patch.setattr(subprocess, "Popen", _refuse)
        for _ in range(2):
            derive.derive(fleet.services, asset.blob.sha256)
        assert {one.state for one in fleet.variants(asset).values()} == {VariantState.PENDING}
    deadline = time.monotonic() + 60
    while {one.state for one in fleet.variants(asset).values()} != {VariantState.READY}:
        assert time.monotonic() < deadline
        derive.derive(fleet.services, asset.blob.sha256)
        time.sleep(0.05)


def test_a_run_alone_begins_in_any_directory(fleet: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module there that has the name of one of ours is not ours."""
    asset = suspect(fleet)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "core.py").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fleet.derive(asset.blob.sha256)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.READY}


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
