"""What a marker may say, which stores get one by themselves, and which only by a person."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from core.errors import StrangeStore
from pipeline.journal.writing import write
from pipeline.replicas.identification import identify, identify_filled
from pipeline.stores import recognition
from pipeline.stores.recognition import Marker, marker_of
from storage.object_keys import MARKER
from storage.recognised import bare
from tests.pipeline.line import Line
from tests.pipeline.recognising import NOT_OURS, PICTURES, brought, content, mark_as
from tests.pipeline.store_places import Directory

pytestmark = pytest.mark.usefixtures("impatient")


def test_markers_of_before_stay_valid_and_names_must_fit(line: Line) -> None:
    own = line.services.installation.ask()
    asset = brought(line, 0)
    for name, fits in ((None, True), ("main", True), ("far", False)):
        mark_as(line, Marker(own, name))
        if fits:
            assert content(line, asset) == PICTURES[0]
        else:
            with pytest.raises(StrangeStore, match=r"'far' of this installation.*mixed up"):
                line.services.default_store.head("a")
    identify(line.services, "main", take_over=own)
    assert content(line, asset) == PICTURES[0]


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'"x"', b'{"installation": 1}', b'{"installation": "x"}', b"\xff"])
def test_what_is_no_marker_is_none(line: Line, text: bytes) -> None:
    store = mark_as(line, None)
    digest = hashlib.sha256(text).digest()
    store.put(MARKER, io.BytesIO(text), size=len(text), sha256=digest, media_type="application/json")
    with pytest.raises(StrangeStore, match=f"{NOT_OURS}.*is not a marker"):
        line.services.default_store.head("a")


USE = """
import sys
from pathlib import Path
from tests.pipeline.line import Line
line = Line(Path(sys.argv[1]), sys.argv[2])
line.services.default_store.sweep_unfinished()
"""


@pytest.mark.parametrize("step", ["recognition.before-mark", "recognition.after-mark"])
def test_a_death_at_the_first_use_costs_nobody_anything(line: Line, arm: Callable[..., None], step: str) -> None:
    arm(step, "kill")
    assert line.settings.database_url is not None
    words = [str(line.settings.home), line.settings.database_url.get_secret_value()]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", USE, *words], env=environment, check=False).returncode < 0
    assert content(line, brought(line, 0)) == PICTURES[0]
    assert marker_of(bare(line.services.default_store)) == Marker(line.services.installation.ask(), "main")


def test_a_store_full_of_what_the_database_does_not_know_is_not_marked(
    line: Line, tmp_path: Path, make_database: Callable[[str], str], template_database: str
) -> None:
    """The database was lost: gc would take everything for left over."""
    brought(line, 0)
    mark_as(line, None)
    other = Line(line.settings.home, make_database(template_database))
    with pytest.raises(StrangeStore, match=r"knows none of them.*storage rebuild"):
        other.services.default_store.sweep_unfinished()
    other.close()


@pytest.mark.parametrize("left", ["blobs", "catalogue"])
def test_strangers_objects_hide_nothing_of_ours(
    line: Line,
    left: str,
    make_database: Callable[[str], str],
    template_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come first in a listing, and are more than are looked at."""
    monkeypatch.setattr(recognition, "LISTED", 10)
    brought(line, 0)
    write(line.services)
    store, put = bare(line.services.default_store), hashlib.sha256(b"").digest()
    mine = [one.key for one in store.scan() if one.key != MARKER]
    store.delete([key for key in mine if key.startswith("catalog/") != (left == "catalogue")])
    for key in ("-", "A", "catalog-"):
        for number in range(11):
            store.put(f"{key}{number}.jpg", io.BytesIO(), size=0, sha256=put, media_type="image/jpeg")
    mark_as(line, None)
    other = Line(line.settings.home, make_database(template_database))
    with pytest.raises(StrangeStore, match=r"knows none of them.*storage rebuild"):
        other.services.default_store.sweep_unfinished()
    store.delete(mine)
    other.services.default_store.sweep_unfinished()
    other.close()


def unmarked(line: Line) -> None:
    """As a store was that is older than markers."""
    mark_as(line, None)
    line.services.metadata.database.run(lambda one: one.exec_driver_sql("DELETE FROM identified_store"))


def test_a_migration_marks_a_store_in_which_it_finds_what_the_rows_say(line: Line) -> None:
    asset = brought(line, 0)
    unmarked(line)
    with pytest.raises(StrangeStore, match="storage identify main"):
        line.services.default_store.head("a")
    said: list[str] = []
    identify_filled(line.services, said.append)
    assert said == ["main: identified, as 1 recorded objects are there"]
    assert content(line, asset) == PICTURES[0]
    identify_filled(line.services, said.append)
    assert len(said) == 1, "there is nothing to do any more"


def test_a_migration_marks_no_store_that_lacks_any_of_them(line: Line) -> None:
    """Nor one that is not mounted, nor another installation's."""
    asset, _ = brought(line, 0), brought(line, 1)
    unmarked(line)
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    bare(line.services.default_store).delete([replica.key])
    said: list[str] = []
    identify_filled(line.services, said.append)
    assert "1 of 2 recorded objects" in said[-1]
    place = Directory(line.settings.home / "store")
    place.take_away()
    identify_filled(line.services, said.append)
    assert "is its disk mounted" in said[-1]
    assert place.holdings() == set()
    place.bring_back()
    mark_as(line, Marker(uuid4(), "main"))
    identify_filled(line.services, said.append)
    assert "belongs to the installation" in said[-1]
