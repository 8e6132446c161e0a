"""Writing the catalogue: crashes, two writers, lost and foreign segments, and a home that is drained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordination.turns import Turns
from core.errors import AlreadyExists, Unavailable
from core.model import Details, StoreState
from core.sections import Catalogue
from metadata.journal.journal_records import Deleted, Fact, Recorded, Rendered
from metadata.journal.outbox import Outbox
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.journal import segments, writing
from pipeline.journal.keys import Segment
from pipeline.journal.lines import Line
from pipeline.journal.writing import write
from storage.interface import ObjectStore, Stored
from tests.pictures import encoded, photo
from tests.pipeline.line import Line as Pipeline
from tests.pipeline.test_placement import stores


def lined(home: Path, database_url: str, **options: object) -> Pipeline:
    return Pipeline(home, database_url, stores=stores(home), **options)


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Pipeline]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


def bring(line: Pipeline, path: str, number: int = 0) -> None:
    line.bring(path, encoded(photo(40 + number, 30), "JPEG"))


def read(store: ObjectStore) -> list[Line]:
    return [Line.parse(text) for one in segments.current(store) for text in segments.lines(store, one)]


def facts(line: Pipeline, store: str = "main") -> list[Fact]:
    """The last word on each."""
    newest: dict[str, Line] = {}
    for one in sorted(read(line.services.store(store)), key=lambda one: one.version):
        newest[one.key] = one
    return [one.fact for one in newest.values()]


def keys(line: Pipeline, store: str = "main") -> list[str]:
    return [one.key for one in line.services.store(store).scan("catalog/")]


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


def test_two_writers_take_two_numbers(line: Pipeline, tmp_path: Path) -> None:
    store = line.services.store("main")
    with segments.draft(tmp_path) as one, segments.draft(tmp_path) as other:
        for made, text in ((one, "1"), (other, "2")):
            made.write(f"{{{text}}}")
            made.end(1)
        segments.put(store, Segment(1, 1), one)
        assert segments.append(store, other) == Segment(2, 2, other.size)


def test_a_late_writer_does_not_slip_under_what_was_merged(
    line: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It chose its number, and before it put anything that number was written by another, merged and removed."""
    store = line.services.store("main")
    listings = iter([[], None, None, None])

    def stale(of: ObjectStore) -> list[Segment]:
        known = next(listings)
        return real(of) if known is None else known

    real = segments.listed
    with segments.draft(tmp_path) as merged, segments.draft(tmp_path) as late:
        for made in (merged, late):
            made.write(f'{{"at": {id(made)}}}')
            made.end(1)
        segments.put(store, Segment(1, 8), merged)
        monkeypatch.setattr(segments, "listed", stale)
        assert segments.append(store, late).first == 9
    monkeypatch.undo()
    assert [(one.first, one.last) for one in segments.current(store)] == [(1, 8), (9, 9)]


def test_who_writes_last_does_not_say_what_is_true(line: Pipeline, tmp_path: Path) -> None:
    """A writer read that the asset lives, and came to put that down only after another had told of its end."""
    bring(line, "/a.jpg")
    outbox = line.services.metadata.outbox
    events = outbox.page(0, 10)
    known = outbox.facts(events)
    deletion.delete(line.services, AssetPath.from_text("/a.jpg"), 0, purge=False)
    write(line.services)
    with segments.draft(tmp_path) as late:
        for version, fact in known:
            late.write(Line(version, fact).text)
        late.end(events[-1].id)
        segments.append(line.services.store("main"), late)
    assert [type(one) for one in facts(line) if isinstance(one, Recorded | Deleted)] == [Deleted]


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


def test_two_writers_do_not_write_the_same_events(
    tmp_path: Path, database_url: str, line: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes in the middle of the first, as another host's worker does."""
    bring(line, "/bare/a.jpg")
    other = lined(tmp_path, database_url)
    append, second = segments.append, []

    def met(store: ObjectStore, made: segments.Draft) -> Segment:
        second.append(write(other.services))
        return append(store, made)

    monkeypatch.setattr(segments, "append", met)
    assert write(line.services) > 0
    assert second == [0]
    assert len(keys(line)) == 1
    assert len([one for one in read(line.services.store("main")) if isinstance(one.fact, Recorded)]) == 1
    other.close()


def test_the_turn_of_a_writer_that_died_ends_with_its_lease(line: Pipeline) -> None:
    bring(line, "/bare/a.jpg")
    turns = line.services.metadata.turns
    token = turns.take(writing.TURN, timedelta(seconds=60))
    assert token is not None
    assert write(line.services) == 0
    assert turns.renew(writing.TURN, token, timedelta(0))
    assert write(line.services) > 0
    assert not turns.renew(writing.TURN, token, timedelta(seconds=60))
    turns.free(writing.TURN, token)  # of who comes too late: changes nothing of another's
    assert turns.take(writing.TURN, timedelta(0)) is not None


class Late:
    """A service that lists late: what was put does not show yet."""

    def __init__(self, store: ObjectStore, *, always_taken: bool) -> None:
        self.name, self.puts, self._store, self._always_taken = store.name, 0, store, always_taken

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        return iter(())

    def put(self, key: str, *arguments: Any, **options: Any) -> None:
        self.puts += 1
        if self._always_taken:
            raise AlreadyExists(key)
        self._store.put(key, *arguments, **options)


def test_a_service_that_lists_late_is_not_asked_for_the_same_number_again_and_again(
    line: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(segments, "sleep", pauses.append)
    late = Late(line.services.store("main"), always_taken=False)
    for number in range(1, 4):
        with segments.draft(tmp_path) as made:
            made.write(f'{{"number": {number}}}')
            made.end(0)
            assert segments.append(late, made).first == number  # type: ignore[arg-type]  # as much as is asked of it
    taken = Late(late._store, always_taken=True)
    pauses.clear()
    with segments.draft(tmp_path) as made:
        made.end(0)
        with pytest.raises(Unavailable, match="taken"):
            segments.append(taken, made)  # type: ignore[arg-type]  # as much as is asked of it
    assert taken.puts == len(pauses) == len(segments.PAUSES)
    assert all(pauses[1:])
