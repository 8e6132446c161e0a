"""The example of docs/stores.md with a demotion rule, as the settings of a whole stack."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.deploy.test_stores_document import section
from tests.e2e.test_placement import SMALL, content, files, held, stored
from tests.faults.stack import ROOT, SETTINGS, Stack
from tests.pictures import encoded

OLD, BRAND, READ = (encoded(Image.effect_noise((400, 300), 60 + number), "PNG") for number in range(3))
QUIET = ("asset", "blob", "replica", "variant", "garbage", "job", "verify_event", "store")
"""Tables that nobody else writes to when nothing happens."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    example = re.findall(r"```toml\n(.*?)```", section("Tiered"), re.DOTALL)[1]
    with Stack(tmp_path, settings=re.sub(r'root = "/', f'root = "{tmp_path}/', example) + SETTINGS) as made:
        yield made


def policy(stack: Stack, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "cli", "storage", "policy", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True, timeout=90, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def everything(stack: Stack, *roots: Path) -> object:
    rows = [stack.sql(f"SELECT t::text FROM {name} t ORDER BY 1") for name in QUIET]
    paths = sorted(
        path for root in roots for path in root.rglob("*.*") if path.is_file() and "catalog" not in path.parts
    )
    return rows, [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in paths]


def test_what_ages_moves_by_itself(stack: Stack, tmp_path: Path) -> None:
    near, away = tmp_path / "srv" / "millrace" / "objects", tmp_path / "mnt" / "away" / "objects"
    old, small = stored(stack, "/bare/old.png", OLD), stored(stack, "/bare/small.jpg", SMALL)
    brand, read = stored(stack, "/brand/logo.png", BRAND), stored(stack, "/bare/read.png", READ)
    young = [one.sha256 for one in (small, brand, read)]
    ended = "SELECT count(*) FROM job WHERE kind = 'demotion' AND state = 'done'"
    stack.until(lambda: stack.sql(ended) == [(1,)], 60, "beat began a run, which found nothing")
    stack.until(lambda: stack.sql("SELECT count(*) FROM variant WHERE state <> 'ready'") == [(0,)], 60, "all is quiet")

    stack.sql("UPDATE asset SET accepted_at = accepted_at - interval '31 days'")
    stack.sql("UPDATE blob SET created_at = created_at - interval '31 days'")
    assert content(stack, "/bare/read.png") == READ
    last = "SELECT count(*) FROM blob WHERE last_read_at IS NOT NULL AND encode(sha256, 'hex') = %s"
    stack.until(lambda: stack.sql(last, read.sha256) == [(1,)], 60, "the reading is written down")

    before = everything(stack, near, away)
    said = policy(stack, "--dry-run")
    assert everything(stack, near, away) == before
    assert said["rules"] == [{"rule": 1, "from": "near", "to": "away", "objects": 1, "bytes": len(OLD)}]
    saved = len(OLD) / (1 << 30) * (0.08 - 0.01)
    assert said["savedPerMonth"] == pytest.approx(saved)

    stack.sql("UPDATE job SET finished_at = finished_at - interval '1 hour'")
    stack.until(lambda: held(stack, old.sha256) == ["away"], 60, "the next run moved it")
    stack.until(lambda: old.sha256 not in files(near), 60, "and its file is gone")
    assert [held(stack, sha256) for sha256 in young] == [["near"]] * 3
    assert (content(stack, "/bare/old.png"), content(stack, "/bare/small.jpg")) == (OLD, SMALL)
    assert httpx.delete(f"{stack.url}/assets/bare/old.png/-/entry/0?purge=true").status_code == 200
    stack.until(lambda: files(away) == [], 60, "it goes with its asset")
