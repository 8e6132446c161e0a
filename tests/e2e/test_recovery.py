"""The database is destroyed, and made anew from the catalogue and the store: docs/recovery.md on a whole stack."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.faults.stack import ROOT, SETTINGS, Stack
from tests.pictures import encoded, photo

CATALOGUE = "[catalogue]\nseconds = 0.5\n"


def picture(number: int) -> bytes:
    return encoded(photo(60 + number, 50), "JPEG")


def command(stack: Stack, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "storage", *words],
        cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@dataclass
class Recovered:
    stack: Stack
    shown: dict[str, Any]
    """What was said of each asset before, by its address."""
    bytes_of: dict[str, str]
    """The SHA-256 of what each address served."""
    unnamed: str
    """The SHA-256 of an original that no segment names."""
    report: dict[str, Any]


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovered]:
    with Stack(tmp_path_factory.mktemp("recovery"), settings=CATALOGUE + SETTINGS) as stack:
        armed = [stack.arm(step, "kill") for step in ("catalogue.after-put", "catalogue.after-forget")]
        addresses = populate(stack)
        for one in armed:  # the writer dies, and another one goes on
            stack.until_fired(one)
        shown = {one: info(stack, one) for one in addresses}
        bytes_of = {one: served(stack, one) for address in addresses for one in contents(address)}
        stack.until(lambda: stack.sql("SELECT count(*) FROM catalogue_event") == [(0,)], 30, "all is written down")
        unnamed = lose_one(stack)
        stack.stop()
        shutil.rmtree(stack.home / "postgres")
        code, said, complained = command(stack, "rebuild", "--json", "--save-unnamed", str(stack.home / "saved"))
        assert code == 1, complained
        stack.start()
        yield Recovered(stack, shown, bytes_of, unnamed, json.loads(said))


def populate(stack: Stack) -> list[str]:
    """Returns the addresses of what lives."""
    query = "alt=Ein+Schuh&tag=rot&tag=schuh&label.sku=12"
    labelled = httpx.post(f"{stack.url}/assets/shoes/a.jpg?{query}", content=picture(0), headers={"Prefer": "wait=20"})
    assert labelled.status_code == 201
    for number in (1, 2, 3):
        assert stack.upload("/shoes/b.jpg", picture(number), key=f"key {number}", wait=20).status == 201
    for number, name in ((4, "gone"), (5, "purged")):
        assert stack.upload(f"/bare/{name}.jpg", picture(number), key=name, wait=20).status == 201
    assert stack.request("DELETE", "/assets/bare/gone.jpg/-/entry/0") == 204
    assert stack.request("DELETE", "/assets/bare/purged.jpg/-/entry/0?purge=true") == 200
    assert stack.request("DELETE", "/assets/shoes/b.jpg/-/entry/2") == 204
    found = ["/assets/shoes/a.jpg/-/entry/0", "/assets/shoes/b.jpg/-/entry/0", "/assets/shoes/b.jpg/-/entry/1"]
    for one in found:
        assert httpx.get(f"{stack.url}{one}/content?w=33", timeout=20).status_code == 200
    pending = "SELECT count(*) FROM variant WHERE state = 'pending'"
    stack.until(lambda: stack.sql(pending) == [(0,)], 30, "all variants are ready")
    return found


def contents(address: str) -> list[str]:
    return [f"{address}/content{query}" for query in ("", "?profile=thumb", "?profile=square", "?w=33")]


def info(stack: Stack, address: str) -> dict[str, Any]:
    """All but how often each variant was tried, which is over."""
    found: dict[str, Any] = httpx.get(f"{stack.url}{address}/info").json()
    for one in found["variants"]:
        del one["attempts"]
    return found


def served(stack: Stack, address: str) -> str:
    answer = httpx.get(f"{stack.url}{address}", timeout=20)
    assert answer.status_code == 200, answer.text
    return hashlib.sha256(answer.content).hexdigest()


def lose_one(stack: Stack) -> str:
    """Recorded, and never written down: the writer fails from now on."""
    stack.arm("catalogue.before-put", "errno EIO", always=True)
    told = stack.upload("/bare/lost.jpg", picture(9), wait=20)
    assert told.status == 201
    return told.sha256


def test_everything_reads_back_as_it_was(recovered: Recovered) -> None:
    stack = recovered.stack
    assert {one: served(stack, one) for one in recovered.bytes_of} == recovered.bytes_of
    assert {one: info(stack, one) for one in recovered.shown} == recovered.shown
    assert recovered.report["assets"] == 3
    assert (recovered.report["missing"], recovered.report["toRender"]) == (0, 0)


def test_what_was_deleted_stays_so(recovered: Recovered) -> None:
    for address in ("/bare/gone.jpg", "/bare/purged.jpg", "/shoes/b.jpg/-/entry/2"):
        assert recovered.stack.request("GET", f"/assets{address}") == 404
    assert recovered.stack.upload("/bare/gone.jpg", picture(4), key="gone").status in (200, 202)
    recovered.stack.until(lambda: not recovered.stack.world().staged["accepted"], 30, "it is worked on")
    assert recovered.stack.request("GET", "/assets/bare/gone.jpg") == 404, "its key was used"


def test_keys_and_entries_go_on(recovered: Recovered) -> None:
    stack = recovered.stack
    again = stack.upload("/shoes/b.jpg", picture(2), key="key 2", wait=20)
    assert str(again.asset_id) == recovered.shown["/assets/shoes/b.jpg/-/entry/1"]["id"]
    new = stack.upload("/shoes/b.jpg", picture(7), wait=20)
    assert (new.status, new.location) == (201, "/assets/shoes/b.jpg/-/entry/3")
    other = stack.upload("/bare/purged.jpg", picture(8), wait=20)
    assert other.location == "/assets/bare/purged.jpg/-/entry/1"


def test_an_original_that_no_segment_names_is_listed_and_brought_back(recovered: Recovered) -> None:
    stack = recovered.stack
    assert stack.request("GET", "/assets/bare/lost.jpg") == 404
    listed = [one["key"].partition(".")[0] for one in recovered.report["unnamedObjects"]]
    assert recovered.unnamed in listed
    saved = stack.home / "saved" / f"{recovered.unnamed}.jpg"
    assert stack.upload("/bare/found.jpg", saved.read_bytes(), wait=20).status == 201
    assert served(stack, "/assets/bare/found.jpg/-/content") == recovered.unnamed


def test_gc_knows_the_store_as_its_own(recovered: Recovered) -> None:
    code, said, complained = command(recovered.stack, "gc", "--dry-run", "--json")
    assert code == 0, complained
    found = json.loads(said)
    assert found["identified"] == {"main": True}
    assert (found["foreign"], found["ahead"]) == (0, 0)
    assert found["catalogue"] > 0
