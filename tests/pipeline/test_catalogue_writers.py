"""Several writers of one catalogue: each takes a number of its own, and none says what another knows better."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from core.errors import AlreadyExists, Unavailable
from metadata.journal.journal_records import Deleted, Recorded
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.journal import segments, writing
from pipeline.journal.keys import Segment
from pipeline.journal.lines import Line
from pipeline.journal.writing import write
from storage.interface import ObjectStore, Stored
from tests.pipeline.catalogue_line import bring, facts, keys, line, lined, read
from tests.pipeline.line import Line as Pipeline

__all__ = ["line"]


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
