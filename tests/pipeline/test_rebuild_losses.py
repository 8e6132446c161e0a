"""A database made anew where something of the catalogue or of the stores is lost, or does not fit."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from core.errors import Misconfigured
from pipeline.journal import segments
from pipeline.journal.writing import write
from pipeline.replicas.identification import identify
from tests.pipeline.line import Line
from tests.pipeline.test_orphans import put
from tests.pipeline.test_placement import read
from tests.pipeline.test_rebuild import PICTURE, anew, line, picture, rebuilt, sql

__all__ = ["anew", "line"]
"""The fixtures, which tests name as parameters."""


def test_an_asset_without_bytes_is_there_and_says_so(line: Line, anew: Callable[[], Line], tmp_path: Path) -> None:
    kept, lost = line.bring("/bare/kept.jpg", picture(0)), line.bring("/lost.jpg", picture(1))
    write(line.services)
    for file in (tmp_path / "main").rglob(f"{lost.blob.sha256.hex()}.*"):
        file.unlink()
    other = anew()
    report = rebuilt(other)
    assert (report.loaded.missing, report.complete) == (1, False)
    assert [one.path for one in report.loaded.missing_assets] == ["/lost.jpg"]
    states = sql(other, "SELECT encode(blob, 'hex'), store, state FROM replica JOIN asset USING (blob)")
    assert sorted(states) == sorted(
        [(kept.blob.sha256.hex(), "main", "healthy"), (lost.blob.sha256.hex(), "main", "missing")]
    )
    [one] = other.services.metadata.inventory.quarantined(["main"], 10)
    assert one.paths == ("/lost.jpg",) or list(one.paths) == ["/lost.jpg"]
    again = other.bring("/lost.jpg", picture(1))
    assert read(other, again) == picture(1), "the same bytes mend both"
    assert read(other, lost) == picture(1)


def test_a_store_that_is_gone_is_filled_from_the_other(line: Line, anew: Callable[[], Line], tmp_path: Path) -> None:
    asset = line.bring("/safe/a.jpg", picture(0))
    write(line.services)
    for file in (tmp_path / "far").rglob("*.*"):
        file.unlink()
    other = anew()
    report = rebuilt(other)
    assert (report.loaded.missing, report.loaded.lacking, report.complete) == (0, 1, True)
    states = sql(other, f"SELECT store, state FROM replica WHERE blob = '\\x{asset.blob.sha256.hex()}' ORDER BY 1")
    assert states == [("far", "missing"), ("main", "healthy")]


def test_what_a_policy_moved_stands_for_its_store_again(line: Line, anew: Callable[[], Line]) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    write(line.services)
    main, far = line.services.store("main"), line.services.store("far")
    [key] = [one.key for one in main.scan(asset.blob.sha256.hex())]
    far.put(key, BytesIO(PICTURE), size=len(PICTURE), sha256=asset.blob.sha256, media_type="image/jpeg")
    main.delete([key])
    other = anew()
    assert rebuilt(other).complete
    assert sql(other, "SELECT store, state, stands_for FROM replica") == [("far", "healthy", "main")]
    assert read(other, asset) == PICTURE


def test_variants_whose_bytes_are_gone_are_made_anew(line: Line, anew: Callable[[], Line], tmp_path: Path) -> None:
    asset = line.bring("/a.jpg", PICTURE)
    write(line.services)
    thumb = line.variants(asset)["thumb"].blob
    assert thumb is not None
    for file in (tmp_path / "main").rglob(f"{thumb.sha256.hex()}.*"):
        file.unlink()
    other = anew()
    report = rebuilt(other)
    assert (report.loaded.variants, report.loaded.to_render) == (1, 1)
    other.derive(asset.blob.sha256)
    assert all(one.blob is not None for one in other.variants(asset).values())


def test_of_several_objects_the_newest_whole_one_is_taken(line: Line, anew: Callable[[], Line]) -> None:
    asset = line.bring("/bare/a.jpg", picture(0))
    write(line.services)
    name = asset.blob.sha256.hex()
    line.services.store("main").put(
        f"{name}.900", BytesIO(picture(0)), size=asset.blob.size, sha256=asset.blob.sha256, media_type="image/jpeg"
    )
    put(line, f"{name}.901", b"torn")
    other = anew()
    assert rebuilt(other).complete
    assert sql(other, "SELECT generation, state FROM replica") == [(900, "healthy")]
    assert other.services.metadata.inventory.last_generation() == 901
    assert read(other, asset) == picture(0)


def test_a_damaged_segment_costs_only_its_own_lines(line: Line, anew: Callable[[], Line], tmp_path: Path) -> None:
    line.bring("/bare/0.jpg", picture(0))
    write(line.services)
    lost = line.bring("/bare/1.jpg", picture(1))
    write(line.services)
    damaged = sorted((tmp_path / "main").rglob("*.ndjson"))[1]
    damaged.write_bytes(damaged.read_bytes()[:60])
    other = anew()
    report = rebuilt(other)
    assert report.sources.damaged == ["main: catalog/000000000002-000000000002.ndjson"]
    assert not report.complete
    assert sql(other, "SELECT path_text FROM asset") == [("/bare/0.jpg",)]
    assert [one.sha256 for one in report.unnamed_objects] == [lost.blob.sha256]


def test_two_databases_that_knew_nothing_of_each_other_come_together(line: Line, anew: Callable[[], Line]) -> None:
    """Uploads came in before anybody thought of rebuilding: their entries were given before."""
    first = line.bring("/bare/a.jpg", picture(0))
    write(line.services)
    between = anew()
    for name in between.services.stores:
        identify(between.services, name, take_over=line.services.installation.ask())
    second = between.bring("/bare/a.jpg", picture(1))
    assert (first.entry, second.entry) == (0, 0)
    write(between.services)
    other = anew()
    report = rebuilt(other)
    assert [(one.id, entry) for one, entry in report.loaded.renumbered] == [(second.id, 1)]
    found = sql(other, "SELECT id, entry FROM asset ORDER BY entry")
    assert [(str(one), entry) for one, entry in found] == [(str(first.id), 0), (str(second.id), 1)]
    assert other.bring("/bare/a.jpg", picture(2)).entry == 2
    write(other.services)
    assert not rebuilt(anew()).loaded.renumbered, "the catalogue knows of it now"


def test_stores_of_two_installations_are_refused(line: Line, anew: Callable[[], Line]) -> None:
    other = anew()
    identify(other.services, "far", take_over=line.services.installation.ask())
    with pytest.raises(Misconfigured, match="different installations"):
        rebuilt(anew())


def test_an_empty_catalogue_lists_all_that_the_stores_hold(line: Line, anew: Callable[[], Line]) -> None:
    line.bring("/bare/a.jpg", picture(0))
    report = rebuilt(anew())
    assert (report.sources.segments, report.loaded.assets, report.unnamed) == (0, 0, 1)
    assert not segments.listed(line.services.store("main"))
