"""Two installations of which one lies within the other: nothing that one does to its store touches the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion
from pipeline.jobs import gc, verification
from pipeline.journal.writing import write
from pipeline.recovery.rebuilding import rebuild
from pipeline.replicas import repair
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.store_places import Bucket
from tests.s3_server import S3Server, s3_server

PICTURES = [encoded(photo(40 + number, 30), "JPEG") for number in range(2)]


@dataclass(frozen=True)
class Nested:
    options: tuple[dict[str, Any], dict[str, Any]]
    """Of the outer store and of the one within."""
    holdings: Callable[[], Mapping[str, bytes]]
    """Of the whole place."""
    within: str
    """What begins so belongs to the inner one."""
    first: int
    """Who was there first."""

    def apart(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return what the outer installation has, and what the inner one has."""
        found = self.holdings()
        theirs = {key: body for key, body in found.items() if key.startswith(self.within)}
        return {key: body for key, body in found.items() if key not in theirs}, theirs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        yield made


@pytest.fixture(params=["roots", "root in objects", "prefixes", "prefix in a whole bucket"])
def nested(request: pytest.FixtureRequest, tmp_path: Path, server: S3Server) -> Nested:
    first = int(" in " in request.param)
    if request.param.startswith("root"):
        outer = tmp_path / "stores"
        inner = outer / ("inner" if request.param == "roots" else "objects/ab/inner")
        roots = tuple({"kind": "filesystem", "root": str(root)} for root in (outer, inner))
        return Nested((roots[0], roots[1]), lambda: files(outer), f"{inner.relative_to(outer)}/", first)
    bucket = Bucket(server, name := f"b{uuid4().hex}")
    prefix, longer = ("a", "a/b") if request.param == "prefixes" else ("", "b")
    options = {**bucket.options(), "key_prefix": prefix}, {**bucket.options(), "key_prefix": longer}
    return Nested(options, lambda: dict.fromkeys(server.keys(name), b""), f"{longer}/", first)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def do_all(line: Line, tmp_path: Path, url: str) -> None:
    """Everything that lists the store, removes from it or concludes from it."""
    deletion.delete(line.services, AssetPath.from_text("/bare/0.jpg"), 0, purge=True)
    line.collect()
    maintenance.sweep_stores(line.services)
    repair.repair(line.services)
    write(line.services)
    progress = run(line, verification.KIND).progress
    assert (progress["missing"], progress["corrupt"], progress["orphans"], progress["removed"]) == (0, 0, 0, 0)
    assert run(line, gc.KIND, grace_seconds=0).progress["removed"] == 0
    anew = Line(tmp_path, url, stores=line.settings.stores)
    assert rebuild(anew.services, lambda what, done, total: None).complete
    assert anew.services.metadata.inventory.installation() == line.services.installation.ask()
    assert anew.services.metadata.assets.newest(AssetPath.from_text("/bare/1.jpg")) is not None
    anew.close()


def test_what_one_does_touches_nothing_of_the_other(
    nested: Nested, tmp_path: Path, make_database: Callable[[str], str], template_database: str
) -> None:
    lines: dict[int, Line] = {}
    for place in (nested.first, 1 - nested.first):
        url = make_database(template_database)
        lines[place] = Line(tmp_path / str(place), url, stores={"main": nested.options[place]})
        for number, picture in enumerate(PICTURES):
            lines[place].bring(f"/bare/{number}.jpg", picture)
    for acting, line in lines.items():
        before = nested.apart()
        assert all(before)
        do_all(line, tmp_path / str(acting), make_database(template_database))
        after = nested.apart()
        assert after[1 - acting] == before[1 - acting]
        assert after[acting] != before[acting]
        line.close()
