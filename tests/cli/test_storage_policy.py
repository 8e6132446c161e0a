"""`millrace storage policy` as an operator runs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.config import config
from core.errors import Misconfigured
from tests.cli.test_storage_migrate import Installation
from tests.pipeline.policy_line import MAIN_TO_FAR, TIERS, ruled
from tests.pipeline.test_placement import held_by, stores

RULE = {**MAIN_TO_FAR, "pinned": ["/bare/0.jpg"]}
PRICES = {"main": 1e6, "far": 1e5}


@pytest.fixture
def installation(tmp_path: Path, database_url: str) -> Iterator[Installation]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    priced: dict[str, dict[str, Any]] = {name: {"price_per_gib_month": price} for name, price in PRICES.items()}
    options = {name: {**TIERS.get(name, {}), **priced.get(name, {})} for name in ("main", "fast", "far")}
    ours = {
        "HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "STORES": json.dumps(stores(tmp_path, **options)),
        "DEMOTION": json.dumps([RULE]),
    }
    line = ruled(tmp_path, database_url, RULE)
    yield Installation(tmp_path, line, inherited | {f"MILLRACE_{name}": value for name, value in ours.items()})
    line.close()


def test_a_dry_run_says_what_moves_and_saves_and_changes_nothing(installation: Installation) -> None:
    sizes = [len(body) for _, body in installation.bring(4)]
    moved, total = sum(sizes[1:]), sum(sizes)
    before = installation.everything()
    code, said, complained = installation.run("policy", "--dry-run", "--json")
    assert (code, complained) == (0, "")
    found = json.loads(said)
    assert found["rules"] == [{"rule": 1, "from": "main", "to": "far", "objects": 3, "bytes": moved}]
    main, far = found["stores"]["main"], found["stores"]["far"]
    assert (main["bytes"], main["bytesAfter"], far["bytes"], far["bytesAfter"]) == (total, total - moved, 0, moved)
    gib = 1 << 30
    assert main["perMonth"] == pytest.approx(total / gib * PRICES["main"])
    assert far["perMonthAfter"] == pytest.approx(moved / gib * PRICES["far"])
    assert found["savedPerMonth"] == pytest.approx(moved / gib * (PRICES["main"] - PRICES["far"]))
    code, said, _ = installation.run("policy", "--dry-run")
    assert code == 0
    assert "This saves" in said
    assert installation.everything() == before


def test_it_moves_what_the_dry_run_said(installation: Installation) -> None:
    (pinned, _), *others = installation.bring(4)
    code, said, _ = installation.run("policy", "--max-mb-s", "100", "--json")
    assert code == 0
    job = json.loads(said)
    assert (job["kind"], job["state"], job["arguments"]) == ("demotion", "done", {"maxMbS": 100})
    assert (job["progress"]["moved"], job["progress"]["movedBytes"]) == (3, sum(len(body) for _, body in others))
    assert held_by(installation.line, pinned.blob) == ["main"]
    assert all(held_by(installation.line, asset.blob) == ["far"] for asset, _ in others)


def test_the_settings_are_shown_as_they_are_written_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("MILLRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_STORES", json.dumps(stores(tmp_path, **TIERS)))
    monkeypatch.setenv("MILLRACE_DEMOTION", json.dumps([dict(MAIN_TO_FAR)]))
    [shown] = json.loads(CliRunner().invoke(config).stdout)["demotion"]
    assert (shown["from"], shown["to"]) == ("main", "far")
    monkeypatch.setenv("MILLRACE_DEMOTION", json.dumps([{"from": "far", "to": "main"}]))
    assert isinstance(CliRunner().invoke(config).exception, Misconfigured)
