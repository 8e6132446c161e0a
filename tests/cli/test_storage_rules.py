"""`millrace storage apply-rules` as an operator runs it: the settings changed, and what is there follows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.sections import Placement
from tests.cli.test_storage_migrate import Installation
from tests.pipeline.test_placement import held_by, lined, stores

BEFORE = Placement(match="/bare/2.jpg", store="main", replicas=("fast",))
AFTER = [
    {"match": "/bare/0.jpg", "store": "main", "replicas": ["far"]},
    {"match": "/bare/1.jpg", "store": "main", "replicas": ["fast", "far"]},
]


@pytest.fixture
def installation(tmp_path: Path, database_url: str) -> Iterator[Installation]:
    """Filled and kept by processes with the rules of before; the command has others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    ours = {
        "HOME": str(tmp_path),
        "DATABASE_URL": database_url,
        "STORES": json.dumps(stores(tmp_path)),
        "PLACEMENT": json.dumps(AFTER),
    }
    line = lined(tmp_path, database_url, BEFORE)
    line.put_rules_in_force()
    yield Installation(tmp_path, line, inherited | {f"MILLRACE_{name}": value for name, value in ours.items()})
    line.close()


def test_a_dry_run_says_what_changes_and_changes_nothing(installation: Installation) -> None:
    sizes = [len(body) for _, body in installation.bring(4)]
    before = installation.everything()
    code, said, complained = installation.run("apply-rules", "--dry-run", "--json")
    assert (code, complained) == (0, "")
    copied = sizes[0] + 2 * sizes[1]
    assert json.loads(said) == {"dryRun": True, "objects": 4, "copies": 3, "copiedBytes": copied, "surplus": 1}
    code, said, complained = installation.run("apply-rules", "--dry-run")
    assert (code, complained) == (0, "")
    assert said == (
        f"4 objects: 3 copies ({copied / 1e6:,.1f} MB) would be made, and of 1 a replica would go that no rule names.\n"
    )
    assert installation.everything() == before


def test_it_does_what_the_dry_run_said(installation: Installation) -> None:
    brought = installation.bring(4)
    old = installation.line
    assert old.services.metadata.rules.are_in_force(old.services.rules)
    code, said, _ = installation.run("apply-rules", "--max-mb-s", "100", "--json")
    assert code == 0
    job = json.loads(said)
    assert (job["kind"], job["state"], job["arguments"]["maxMbS"]) == ("apply-rules", "done", 100)
    progress = job["progress"]
    assert (progress["total"], progress["done"], progress["copied"], progress["leftToGc"]) == (4, 4, 3, 1)
    assert progress["copiedBytes"] == len(brought[0][1]) + 2 * len(brought[1][1])
    assert not old.services.metadata.rules.are_in_force(old.services.rules)
    new = lined(
        installation.home, installation.environment["MILLRACE_DATABASE_URL"], *map(Placement.model_validate, AFTER)
    )
    new.collect()
    held = [held_by(new, asset.blob) for asset, _ in brought]
    assert held == [["far", "main"], ["far", "fast", "main"], ["main"], ["main"]]
    code, said, _ = installation.run("apply-rules", "--dry-run", "--json")
    assert (code, json.loads(said)["copies"], json.loads(said)["surplus"]) == (0, 0, 0)
    new.close()
