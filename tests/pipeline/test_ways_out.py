"""Every way out of a staged entry settles its row: nothing that has left staging says `staged` for ever, and so becomes
a false `host-lost`. Ranges over how the entry leaves, and over what the fleet knew of the upload before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from core.errors import Unavailable
from core.model import FailureReason, IngestState, Manifest, StagedEntry
from metadata.paths import AssetPath
from pipeline import failures
from pipeline.assets import deletion
from pipeline.uploads import status
from pipeline.uploads.ingest import Outcome
from pipeline.uploads.sweep import Sweep
from storage.staging.claim import Claim
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_sweep import Recorder

PICTURE, ANOTHER = encoded(photo(64, 48), "JPEG"), encoded(photo(48, 64), "JPEG")
PATH, KEY = "/bare/a.jpg", "a key"
NOW, LATER = timedelta(0), timedelta(hours=1)


@dataclass
class Fleet:
    """Two hosts with one database and one store; the upload is on `here`."""

    here: Line
    there: Line
    manifest: Manifest

    def at_work(self) -> Outcome:
        return self.here.ingest(self.manifest.id)

    def recorded_there(self, data: bytes = PICTURE) -> None:
        assert self.there.ingest(self.there.accept(PATH, data, key=KEY).id) is Outcome.STORED

    def set_aside(self) -> None:
        claim = self.here.services.staging.claim(self.manifest.id)
        assert claim is not None
        with claim:
            claim.quarantine(FailureReason("bad-image", "as a test wants it"))

    def sweep(self) -> None:
        Sweep(self.here.services, Recorder()).run()


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    stores = {"main": {"kind": "filesystem", "root": str(tmp_path / "store")}}
    here, there = (Line(tmp_path / name, database_url, stores=stores) for name in ("here", "there"))
    yield Fleet(here, there, here.accept(PATH, PICTURE, key=KEY))
    here.close()
    there.close()


def _stored(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    assert fleet.at_work() is Outcome.STORED


def _recorded_by_another_host_first(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    fleet.recorded_there()
    assert fleet.at_work() is Outcome.STORED


def _deleted_before_it_was_its_turn(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    fleet.recorded_there()
    deletion.delete(fleet.there.services, AssetPath.from_text(PATH), 0, purge=False)
    assert fleet.at_work() is Outcome.STORED


def _purged_before_it_was_its_turn(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    fleet.recorded_there()
    deletion.delete(fleet.there.services, AssetPath.from_text(PATH), 0, purge=True)
    assert fleet.at_work() is Outcome.STORED


def _recorded_but_its_copy_stayed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Claim, "drop", _refuse)
        assert fleet.at_work() is not Outcome.STORED
    assert fleet.at_work() is Outcome.STORED


def _retried_from_quarantine(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    fleet.set_aside()
    fleet.sweep()
    failures.wish(fleet.there.services, fleet.manifest.id, "retry")
    fleet.sweep()
    assert fleet.at_work() is Outcome.STORED


def _recorded_there_while_in_quarantine_here(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.recorded_there()
    _retried_from_quarantine(fleet, monkeypatch)


def _conflict(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    fleet.recorded_there(ANOTHER)
    assert fleet.at_work() is Outcome.FAILED


def _discarded(fleet: Fleet, _: pytest.MonkeyPatch) -> None:
    fleet.set_aside()
    fleet.sweep()
    failures.wish(fleet.there.services, fleet.manifest.id, "discard")
    fleet.sweep()


def _refuse(_: Claim) -> None:
    raise Unavailable("as a test wants it")


Way = Callable[[Fleet, pytest.MonkeyPatch], None]
WAYS: dict[Way, IngestState | None] = {
    _stored: IngestState.READY,
    _recorded_by_another_host_first: IngestState.READY,
    _deleted_before_it_was_its_turn: IngestState.READY,
    _purged_before_it_was_its_turn: IngestState.READY,
    _recorded_but_its_copy_stayed: IngestState.READY,
    _retried_from_quarantine: IngestState.READY,
    _recorded_there_while_in_quarantine_here: IngestState.READY,
    _conflict: IngestState.FAILED,
    _discarded: None,
}
"""And what is to be said of the upload afterwards; None: nothing."""


@pytest.mark.parametrize("before", ["unknown", "announced", "feared"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_every_way_out_settles_the_row(fleet: Fleet, way: Way, before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = fleet.there.services.metadata.uploads
    if before != "unknown":
        Sweep(fleet.here.services, Recorder()).announce()
    if before == "feared":
        assert uploads.mark_lost_hosts(NOW) == 1
    way(fleet, monkeypatch)
    fleet.sweep()
    assert list(fleet.here.services.staging.entries()) == []
    for host_lost in (LATER, NOW):  # its host may be silent from now on
        uploads.mark_lost_hosts(host_lost)
        said = uploads.find(fleet.manifest.id, host_lost=host_lost)
        assert (said and said.state) == WAYS[way]
    kinds = [one.reason.kind for one in fleet.there.services.metadata.failures.page(None, 10).items]
    assert kinds == (["idempotency-conflict"] if WAYS[way] is IngestState.FAILED else [])


def test_what_is_on_disk_is_announced_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    uploads = fleet.here.services.metadata.uploads
    announce = uploads.announce

    def note(host_id: UUID, entries: Sequence[StagedEntry], **more: int) -> None:
        told.append(len(entries))
        announce(host_id, entries, **more)

    monkeypatch.setattr(uploads, "announce", note)
    sweep = Sweep(fleet.here.services, Recorder())
    for _ in range(3):
        sweep.announce()
    fleet.here.accept("/bare/b.jpg", PICTURE)
    sweep.announce()
    assert told == [0, 1, 0, 0, 0, 1], "that the host lives, each time, and what is new"
    found = status.find(fleet.there.services, fleet.manifest.id, accepted_at_host=fleet.here.services.staging.host_id)
    assert found.state is IngestState.STAGED
