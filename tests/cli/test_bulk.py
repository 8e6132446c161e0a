"""`millrace ingest` and `millrace failures` beside a whole Millrace that runs in the same home."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.stack import ROOT, Stack
from tests.pictures import encoded, photo


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("bulk")) as made:
        yield made


def millrace(stack: Stack, *arguments: str | Path) -> subprocess.Popen[str]:
    """Without --url: it finds the service through the home."""
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=stack.environment, text=True, stdout=subprocess.PIPE)


def ended(child: subprocess.Popen[str], status: int = 0) -> str:
    stdout, _ = child.communicate(timeout=120)
    assert child.returncode == status, stdout
    return stdout


def told(child: subprocess.Popen[str], status: int = 0) -> Any:
    return json.loads(ended(child, status))


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"no {number}?.jpg").write_bytes(encoded(photo(100 + number, 80), "JPEG"))
    return folder


def test_a_folder_sent_twice_while_the_web_server_dies_is_there_once(stack: Stack, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "folder", 60)
    child = millrace(stack, "ingest", folder, "--into", "/bulk", "--json")
    stack.until(lambda: int(stack.sql("SELECT count(*) FROM asset")[0][0]) > 2, 30, "some are stored")
    stack.kill("gunicorn")
    first = told(child)
    again = told(millrace(stack, "ingest", folder, "--into", "/bulk", "--json"))
    for said in (first, again):
        assert (said["files"], said["ready"], said["failures"]) == (60, 60, [])
    assert stack.sql("SELECT count(*), max(entry) FROM asset") == [(60, 0)]
    assert httpx.get(f"{stack.url}/assets/bulk/no%207%3F.jpg/-/content?profile=thumb").status_code == 200


def test_a_failure_is_reported_listed_retried_and_discarded(stack: Stack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gif"
    broken.write_bytes(_broken_gif())
    said = told(millrace(stack, "ingest", broken, "--into", "/bad", "--json"), status=1)
    [failure] = said["failures"]
    assert failure["path"] == "/bad/broken.gif"
    [listed] = told(millrace(stack, "failures", "--json"))
    assert listed["id"] == failure["id"]
    assert (listed["path"], listed["failure"]["class"]) == ("/bad/broken.gif", failure["class"])
    assert "1 of 1" in ended(millrace(stack, "failures", "retry", failure["id"]))
    stack.until(lambda: _failed_after(stack, listed["failedAt"]), 30, "it is tried again, and fails again")
    ended(millrace(stack, "failures", "discard", "--all", "--yes"))
    stack.until(lambda: _rows(stack) == [], 30, "the failure is let go")


def _rows(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{stack.url}/failures").json()["failures"]
    return found


def _failed_after(stack: Stack, before: str) -> bool:
    rows = _rows(stack)
    return bool(rows) and rows[0]["failedAt"] != before and rows[0]["wish"] is None


def _broken_gif() -> bytes:
    """One frame that is longer than a probe reads and never ends: only ingest sees that."""
    start = b"GIF89a" + bytes([64, 0, 48, 0, 0, 0, 0]) + b"\x2c" + bytes([0, 0, 0, 0, 64, 0, 48, 0, 0, 8])
    return start + (b"\xff" + bytes(255)) * 17_000
