"""The examples of docs/stores.md with several stores, each as the settings of a whole stack."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.deploy.test_stores_document import section
from tests.faults.history import Told
from tests.faults.stack import ROOT, SETTINGS, Stack
from tests.pictures import encoded, photo

Start = Callable[[str], Stack]

SMALL = encoded(photo(120, 90), "JPEG")
LARGE = encoded(Image.effect_noise((300, 200), 80), "PNG")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A stack with the example of that section; its directories lie below ours."""
    with ExitStack() as stacks:

        def start(name: str) -> Stack:
            found = re.search(r"```toml\n(.*?)```", section(name), re.DOTALL)
            assert found
            example = re.sub(r'root = "/', f'root = "{tmp_path}/', found[1])
            return stacks.enter_context(Stack(tmp_path, settings=example + SETTINGS))

        yield start


def held(stack: Stack, sha256: str, state: str = "healthy") -> list[str]:
    query = "SELECT store FROM replica WHERE encode(blob, 'hex') = %s AND state = %s ORDER BY store"
    return [name for (name,) in stack.sql(query, sha256, state)]


def stored(stack: Stack, path: str, body: bytes) -> Told:
    told = stack.upload(path, body, wait=20)
    assert told.status == 201
    return told


def variants(stack: Stack, path: str) -> dict[str, str]:
    """Where the bytes of each are, once all are ready."""

    def ready() -> bool:
        shown = httpx.get(f"{stack.url}/assets{path}/-/info").json()["variants"]
        hashes.update({one["profile"]: one["sha256"] for one in shown if one["state"] == "ready"})
        return len(hashes) == 2

    hashes: dict[str, str] = {}
    stack.until(ready, 30, "the variants are ready")
    return hashes


def content(stack: Stack, path: str, query: str = "") -> bytes:
    answer = httpx.get(f"{stack.url}/assets{path}/-/content{query}", timeout=20)
    assert answer.status_code == 200, answer.text
    return answer.content


def files(root: Path) -> list[str]:
    """Of bytes; what the catalogue writes comes when it comes."""
    found = (path for path in root.rglob("*.*") if path.is_file() and not path.name.startswith("catalog,"))
    return sorted(path.name.partition(".")[0] for path in found)


def test_hybrid_small_bytes_are_rows_and_large_ones_files(start: Start, tmp_path: Path) -> None:
    stack = start("Hybrid")
    assert len(SMALL) < 20 << 10 < len(LARGE)
    small, large = stored(stack, "/small.jpg", SMALL), stored(stack, "/large.png", LARGE)
    thumbs = [*variants(stack, "/small.jpg").values(), *variants(stack, "/large.png").values()]
    assert held(stack, small.sha256) == ["rows"]
    assert held(stack, large.sha256) == ["files"]
    assert [held(stack, one) for one in thumbs] == [["rows"]] * 4
    assert files(tmp_path / "srv" / "millrace" / "objects") == [large.sha256]
    [(objects,)] = stack.sql("SELECT count(*) FROM millrace_objects.blob_object WHERE strpos(key, '.') > 0")
    assert objects == 1 + len(set(thumbs))
    assert (content(stack, "/small.jpg"), content(stack, "/large.png")) == (SMALL, LARGE)
    assert len(content(stack, "/large.png", "?profile=thumb")) > 0
    part = httpx.get(f"{stack.url}/assets/small.jpg/-/content", headers={"Range": "bytes=-7"})
    assert (part.status_code, part.content) == (206, SMALL[-7:])


def test_replicated_originals_lie_twice_and_one_copy_is_enough_to_read(start: Start, tmp_path: Path) -> None:
    stack = start("Replicated")
    contract, other = stored(stack, "/contracts/a.jpg", SMALL), stored(stack, "/b.png", LARGE)
    assert held(stack, contract.sha256) == ["away", "near"], "at once"
    stack.until(lambda: held(stack, other.sha256) == ["away", "near"], 30, "the other one follows")
    assert [held(stack, one) for one in variants(stack, "/b.png").values()] == [["near"]] * 2
    for file in (tmp_path / "srv" / "millrace" / "objects").rglob(f"{contract.sha256}.*"):
        file.unlink()
    assert content(stack, "/contracts/a.jpg") == SMALL
    stack.until(lambda: held(stack, contract.sha256) == ["away", "near"], 30, "the lost one is back")
    assert contract.sha256 in files(tmp_path / "srv" / "millrace" / "objects")


def test_moving_beside_what_runs(start: Start, tmp_path: Path) -> None:
    """From the one that is in use to the other; HTTP shows the same job."""
    stack = start("Moving to another store")
    told = stored(stack, "/a.jpg", SMALL)
    thumbs = variants(stack, "/a.jpg").values()
    command = [sys.executable, "-m", "cli", "storage", "migrate", "--from", "new", "--to", "old", "--delete-source"]
    said = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=90, check=True
    ).stdout
    job = json.loads(said)
    shown = httpx.get(f"{stack.url}/jobs/{job['id']}").json()
    assert {name: shown[name] for name in job} == job
    assert (job["state"], job["progress"]["removed"]) == ("done", 3)
    assert files(tmp_path / "srv" / "millrace" / "objects") == []
    assert [held(stack, one) for one in (told.sha256, *thumbs)] == [["old"]] * 3
    assert content(stack, "/a.jpg") == SMALL
    assert len(content(stack, "/a.jpg", "?profile=square")) > 0
    after = stored(stack, "/after.png", LARGE)
    assert held(stack, after.sha256) == ["old"], "new ones go there, too"
    arguments = {"source": "old", "target": "new", "deleteSource": True}
    back = httpx.post(f"{stack.url}/jobs", json={"kind": "migrate", "arguments": arguments})
    assert back.status_code == 202
    address = stack.url + back.headers["Location"]
    stack.until(lambda: httpx.get(address).json()["state"] == "done", 60, "the workers moved it back")
    assert files(tmp_path / "mnt" / "old" / "objects") == []
    assert (content(stack, "/a.jpg"), content(stack, "/after.png")) == (SMALL, LARGE)
