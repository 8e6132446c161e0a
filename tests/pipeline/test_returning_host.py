"""What others say of an upload that a host accepted long ago and has not told of yet, while that host comes back: it
lives before it has told of all that it holds, and until it has, nothing that it holds `never was`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from core.errors import MillraceError
from core.model import IngestState
from pipeline.uploads import status
from pipeline.uploads.sweep import Sweep
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_sweep import Recorder

PICTURE = encoded(photo(64, 48), "JPEG")
LONG_AGO_SECONDS = 7200
"""Longer than `work.host_lost_seconds`."""


@dataclass
class Fleet:
    here: Line
    there: Line

    def said(self, upload_id: UUID) -> IngestState | str:
        """Return what the other host says: a state, or the code of an error."""
        here = self.here.services.staging.host_id
        try:
            return status.find(self.there.services, upload_id, accepted_at_host=here).state
        except MillraceError as error:
            return error.code


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    here, there = (Line(tmp_path / name, database_url) for name in ("here", "there"))
    yield Fleet(here, there)
    here.close()
    there.close()


@pytest.mark.parametrize("stops_by", ["an error", "the disk"])
def test_nothing_that_a_host_holds_never_was(fleet: Fleet, arm: Callable[..., None], stops_by: str) -> None:
    held, invented = _accepted_long_ago(fleet.here), _id_of_long_ago()
    sweep = Sweep(fleet.here.services, Recorder())
    accepted = fleet.here.settings.staging_path / "accepted"
    assert fleet.said(held) is IngestState.FAILED  # its host was never heard of
    if stops_by == "an error":
        arm("announce.after-commit", "raise")
    else:
        accepted.rename(accepted.with_name("aside"))
    for _ in range(3 if stops_by == "the disk" else 1):  # it goes on living without its disk
        with suppress(RuntimeError, FileNotFoundError):
            sweep.announce()
        assert fleet.said(held) == fleet.said(invented) == "ask-staging-host"
    if stops_by == "the disk":
        accepted.with_name("aside").rename(accepted)
    sweep.announce()
    assert fleet.said(held) is IngestState.STAGED
    sweep.announce()  # which says that the one before told of all
    assert fleet.said(held) is IngestState.STAGED
    assert fleet.said(invented) == "not-found"


def _accepted_long_ago(line: Line) -> UUID:
    manifest = line.accept("/bare/a.jpg", PICTURE)
    manifest = replace(manifest, id=_id_of_long_ago(), asset_id=uuid4())
    with line.services.staging.begin(manifest.id, expected=len(PICTURE)) as incoming:
        incoming.write(PICTURE)
        incoming.commit(manifest)
    return manifest.id


def _id_of_long_ago() -> UUID:
    milliseconds = int((time.time() - LONG_AGO_SECONDS) * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | uuid4().int & ((1 << 62) - 1))
