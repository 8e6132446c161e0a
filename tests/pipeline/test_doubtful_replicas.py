"""An upload of bytes that a store holds already, while it is in doubt whether it holds them."""

from __future__ import annotations

import pytest

from core.errors import NotFound
from pipeline.uploads import ingest
from storage.interface import Stored
from storage.recognised import bare
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(), "JPEG")


def test_one_answer_that_an_object_is_missing_condemns_none(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    first, store = line.bring("/bare/a.jpg", PICTURE), bare(line.services.default_store)
    before, head, asked = line.objects(), store.head, []

    def forgetful(key: str) -> Stored:
        asked.append(key)
        if len(asked) == 1:
            raise NotFound("an answer of a moment")
        return head(key)

    monkeypatch.setattr(store, "head", forgetful)
    assert line.bring("/bare/b.jpg", PICTURE).blob == first.blob
    assert asked
    assert line.objects() == before
    assert line.services.metadata.blobs.garbage(10) == []


def test_a_replica_found_corrupt_before_the_record_gets_the_right_bytes(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, placed, original = line.bring("/bare/a.jpg", PICTURE), [], ingest.place

    def place_then_doubt(*arguments: object) -> object:
        replica = original(*arguments)  # type: ignore[arg-type]
        if not placed:
            assert line.services.metadata.repairs.mark(replica, "corrupt", "another process read it") == "marked"
        placed.append(replica)
        return replica

    monkeypatch.setattr(ingest, "place", place_then_doubt)
    assert line.bring("/bare/b.jpg", PICTURE).blob == first.blob
    assert len(placed) == 2
    assert line.services.metadata.blobs.replicas(first.blob.sha256) == [placed[1]]
    assert placed[0].generation != placed[1].generation
    assert line.holds(PICTURE)
