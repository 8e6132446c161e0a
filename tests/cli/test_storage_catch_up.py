"""`millrace storage catch-up` as an operator runs it: what it says, and that a dry run says the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.storage_catch_up import command
from tests.pipeline.line import Line
from tests.pipeline.test_placement import lined, stores

BODY = b"from a later day"


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def later(line: Line) -> str:
    """An object that the database knows nothing of, of a generation that it has not come to."""
    digest = hashlib.sha256(BODY)
    key = f"{digest.hexdigest()}.700"
    line.services.store("far").put(key, BytesIO(BODY), size=len(BODY), sha256=digest.digest(), media_type="image/png")
    return key


def catch_up(line: Line, tmp_path: Path, *words: str) -> Result:
    url = line.settings.database_url
    assert url is not None
    variables = {"HOME": str(tmp_path), "DATABASE_URL": url.get_secret_value(), "STORES": json.dumps(stores(tmp_path))}
    done = CliRunner().invoke(command, words, env={f"MILLRACE_{name}": value for name, value in variables.items()})
    assert done.exit_code == 0, done.output
    return done


def test_what_is_unknown_is_listed_and_counted(line: Line, later: str, tmp_path: Path) -> None:
    last = line.services.metadata.inventory.last_generation
    *listed, counts = map(json.loads, catch_up(line, tmp_path, "--json", "--list", "--dry-run").stdout.splitlines())
    assert [(one["store"], one["key"], one["size"]) for one in listed] == [("far", later, len(BODY))]
    expected: dict[str, Any] = {"dryRun": True, "ahead": 1, "taken": 0, "unknown": 1, "unknownBytes": len(BODY)}
    assert expected.items() <= counts.items()
    assert last() == 0
    done = catch_up(line, tmp_path, "--list")
    assert done.stdout.split()[:3] == ["far", later, str(len(BODY))]
    assert "1 were newer than the database" in done.stderr
    assert last() > 700
    assert "0 were newer than the database" in catch_up(line, tmp_path).stdout
