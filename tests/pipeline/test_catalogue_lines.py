"""How segments and their lines look, and what is refused of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Corrupt, Misconfigured
from core.sections import Catalogue
from metadata.journal.journal_records import Deleted, Recorded, Rendered
from pipeline.journal import segments
from pipeline.journal.keys import Segment, is_segment, uncovered
from pipeline.journal.lines import Line
from pipeline.journal.writing import write
from tests.pipeline.catalogue_line import bring, line
from tests.pipeline.line import Line as Pipeline

__all__ = ["line"]
"""The fixtures, which tests name as parameters."""


def test_a_segment_that_is_cut_short_is_told_from_a_whole_one(line: Pipeline, tmp_path: Path) -> None:
    bring(line, "/a.jpg")
    write(line.services)
    [file] = (tmp_path / "main").rglob("*.ndjson")
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole[:-1]))
    store = line.services.store("main")
    [segment] = segments.current(store)
    with pytest.raises(Corrupt):
        list(segments.lines(store, segment))
    file.write_bytes(b"".join([*whole[:1], whole[-1]]))
    [segment] = segments.current(store)
    with pytest.raises(Corrupt, match="lacks lines"):
        list(segments.lines(store, segment))
    bring(line, "/b.jpg", 1)
    assert write(line.services) > 0, "and the catalogue goes on"


def test_a_line_of_a_newer_format_is_refused(line: Pipeline) -> None:
    with pytest.raises(Misconfigured, match="newer"):
        Line.parse('{"v":2,"n":1,"kind":"whatever"}')
    with pytest.raises(Corrupt):
        Line.parse('{"v":1,"n":1,"kind":"whatever"}')


def test_names() -> None:
    segment = Segment(1, 12, 5)
    assert segment.key == "catalog/000000000001-000000000012.ndjson"
    assert is_segment(segment.key)
    assert not is_segment("catalog/1-2.ndjson")
    parts = [Segment(1, 1), Segment(2, 2), Segment(3, 3)]
    assert uncovered([*parts, Segment(1, 2)]) == [Segment(1, 2), Segment(3, 3)]
    assert uncovered([*parts, Segment(1, 2), Segment(1, 3)]) == [Segment(1, 3)]
    assert uncovered(parts) == parts
    assert not parts[0].covers(replace(parts[0], size=9))


def test_the_lines_of_the_document_are_lines() -> None:
    text = (Path(__file__).parents[2] / "docs" / "recovery.md").read_text(encoding="utf-8")
    shown = text.split("```json\n")[1].split("```")[0].splitlines()
    assert [type(Line.parse(one).fact) for one in shown] == [Recorded, Deleted, Rendered]
    assert [Line.parse(Line.parse(one).text) for one in shown] == [Line.parse(one) for one in shown]
    for name in Catalogue.model_fields:
        assert f"| `catalogue.{name}` |" in text
