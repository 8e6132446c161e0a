"""Writing the catalogue: crashes, lost and foreign segments, and a home that is drained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordination.turns import Turns
from core.errors import Unavailable
from core.model import Details, StoreState
from core.sections import Catalogue
from metadata.journal.journal_records import Deleted, Recorded, Rendered
from metadata.journal.outbox import Outbox
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.journal import segments, writing
from pipeline.journal.keys import Segment
from pipeline.journal.lines import Line
from pipeline.journal.writing import write
from storage.interface import ObjectStore
from tests.pictures import encoded, photo
from tests.pipeline.catalogue_line import bring, facts, keys, line, lined, read
from tests.pipeline.line import Line as Pipeline

__all__ = ["line"]


def test_what_is_written_down_is_what_there_is(line: Pipeline) -> None:
    details = Details("ein Schuh", {"größe": "44"}, ("rot", "schuh"))
    asset = line.bring("/schöne/a.jpg", encoded(photo(), "JPEG"), details=details)
    assert write(line.services) > 0
    recorded = [one for one in facts(line) if isinstance(one, Recorded)]
    assert [one.asset for one in recorded] == [asset]
    assert {want.profile for want in recorded[0].eager} == {"thumb", "square"}
    rendered = {one.want.recipe_hash: one.output for one in facts(line) if isinstance(one, Rendered)}
    assert rendered == {one.recipe_hash: one.blob for one in line.variants(asset).values()}
    assert keys(line) == ["catalog/000000000001-000000000001.ndjson"]
    assert write(line.services) == 0
    assert len(keys(line)) == 1, "nothing new, no segment"


def test_every_line_comes_back_as_it_was(line: Pipeline) -> None:
    bring(line, "/a.jpg")
    bring(line, "/b.jpg", 1)
    deletion.delete(line.services, AssetPath.from_text("/a.jpg"), 0, purge=True)
    deletion.delete(line.services, AssetPath.from_text("/b.jpg"), 0, purge=False)
    write(line.services)
    found = read(line.services.store("main"))
    assert len({type(one.fact) for one in found}) == 3
    assert [Line.parse(one.text) for one in found] == found


@pytest.mark.parametrize("step", ["catalogue.before-put", "catalogue.after-put", "catalogue.after-forget"])
def test_a_crash_loses_no_event(line: Pipeline, arm: Callable[..., None], step: str) -> None:
    bring(line, "/a.jpg")
    arm(step, "errno EIO")
    with pytest.raises((Unavailable, OSError)):
        write(line.services)
    bring(line, "/b.jpg", 1)
    write(line.services)
    assert {one.asset.path for one in facts(line) if isinstance(one, Recorded)} == {"/a.jpg", "/b.jpg"}
    assert line.services.metadata.outbox.page(0, 10) == []


def test_a_catalogue_that_is_lost_is_begun_anew_with_everything(line: Pipeline) -> None:
    for number in range(2):
        bring(line, f"/{number}.jpg", number)
    deletion.delete(line.services, AssetPath.from_text("/0.jpg"), 0, purge=False)
    write(line.services)
    before = {repr(one) for one in facts(line)}
    line.services.store("main").delete(keys(line))
    assert write(line.services) > 0
    assert {repr(one) for one in facts(line)} == before


def test_a_database_that_is_older_than_the_catalogue_goes_on_beyond_it(line: Pipeline, tmp_path: Path) -> None:
    asset = line.bring("/a.jpg", encoded(photo(), "JPEG"))
    write(line.services)
    gone = Deleted(asset.id, "/a.jpg", 0, b"", asset.id, asset.accepted_at, None)
    with segments.draft(tmp_path) as ahead:
        ahead.write(Line(10_000, gone).text)
        ahead.end(10_000)
        segments.append(line.services.store("main"), ahead)
    bring(line, "/b.jpg", 1)
    write(line.services)
    assert {one.asset.path for one in facts(line) if isinstance(one, Recorded)} == {"/a.jpg", "/b.jpg"}
    assert not any(isinstance(one, Deleted) for one in facts(line)), "what the backup says holds again"
    assert line.services.metadata.outbox.last() > 10_000


@pytest.mark.parametrize("step", ["refill", "advance"])
def test_a_backup_is_told_of_though_the_one_who_saw_it_died(
    line: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    asset = line.bring("/bare/a.jpg", encoded(photo(), "JPEG"))
    write(line.services)
    with segments.draft(tmp_path) as ahead:
        ahead.write(Line(10_000, Deleted(asset.id, "/bare/a.jpg", 0, b"", asset.id, asset.accepted_at, None)).text)
        ahead.end(10_000)
        segments.append(line.services.store("main"), ahead)

    class Died(Exception):
        pass

    done = getattr(Outbox, step)

    def dies(outbox: Outbox, *arguments: int) -> None:
        done(outbox, *arguments)
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, step, dies)
        with pytest.raises(Died):
            write(line.services)
    write(line.services)
    assert [type(one) for one in facts(line) if isinstance(one, Recorded | Deleted)] == [Recorded]


def test_nobody_begins_a_catalogue_before_all_is_noted(line: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(line, "/bare/a.jpg")

    @contextmanager
    def refused(_turns: Turns, _name: str) -> Iterator[None]:
        yield None

    with monkeypatch.context() as patched:
        patched.setattr(Turns, "take", refused)
        assert write(line.services) == 0
    assert keys(line) == []
    assert write(line.services) > 0


def test_many_events_are_several_segments(line: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PAGE", 2)
    monkeypatch.setattr(writing, "EVENTS", 4)
    for number in range(4):
        bring(line, f"/bare/{number}.jpg", number)
    waiting = len(line.services.metadata.outbox.page(0, 100))
    assert write(line.services) >= waiting
    assert len(keys(line)) > 1
    assert {one.asset.path for one in facts(line) if isinstance(one, Recorded)} == {f"/bare/{n}.jpg" for n in range(4)}


def test_settings_name_its_store(tmp_path: Path, database_url: str) -> None:
    line = lined(tmp_path, database_url, catalogue=Catalogue(store="far"))
    bring(line, "/bare/a.jpg")
    write(line.services)
    assert (keys(line, "main"), len(keys(line, "far"))) == ([], 1)
    line.close()


def test_it_follows_who_takes_the_place_of_its_store(line: Pipeline) -> None:
    bring(line, "/bare/a.jpg")
    write(line.services)
    line.services.metadata.stores.set_state(StoreState("main", "draining", "far"))
    bring(line, "/bare/b.jpg", 1)
    write(line.services)
    assert (len(keys(line, "main")), len(keys(line, "far"))) == (1, 1)
    assert [one.asset.path for one in facts(line, "far") if isinstance(one, Recorded)] == ["/bare/b.jpg"]


def test_a_store_that_begins_to_be_drained_in_the_middle_keeps_nothing_back(
    line: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(line, "/bare/a.jpg")
    write(line.services)
    bring(line, "/bare/b.jpg", 1)
    append = segments.append

    def drained(store: ObjectStore, made: segments.Draft) -> Segment:
        line.services.metadata.stores.set_state(StoreState("main", "draining", "far"))
        return append(store, made)

    monkeypatch.setattr(segments, "append", drained)
    write(line.services)
    assert (len(keys(line, "main")), len(keys(line, "far"))) == (1, 1)
    assert [one.asset.path for one in facts(line, "far") if isinstance(one, Recorded)] == ["/bare/b.jpg"]
