"""What is put aside, what is broken, and what is swept."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from cli.main import millrace
from core.errors import Unavailable
from core.model import Attempts
from storage.staging.folders import DISCARDED
from storage.staging.staging import Staging
from tests.storage.staging.uploads import (
    BAD,
    BODY,
    arm,
    in_quarantine,
    manifest,
    names,
    new_id,
    open_claim,
    stage,
)

NOW = timedelta(0)


def test_quarantine_shows_the_reason_and_goes_back_or_away(staging: Staging) -> None:
    upload_id = in_quarantine(staging)
    entry = staging.look(upload_id)
    assert entry is not None
    assert (entry.quarantined, entry.attempts.failure) == (True, BAD)
    assert list(staging.quarantined()) == [entry]
    assert staging.claim(upload_id) is None
    assert list(staging.entries()) == []

    assert staging.requeue(upload_id)
    assert not staging.requeue(upload_id)
    back = staging.look(upload_id)
    assert back is not None
    assert (back.quarantined, back.attempts) == (False, Attempts(failure=BAD))
    with open_claim(staging, upload_id) as claim:
        assert claim.body().read() == BODY
        claim.quarantine(BAD)

    assert staging.discard(upload_id)
    assert not staging.discard(upload_id)
    assert staging.look(upload_id) is None
    assert staging.recently_done(upload_id) is None, "what was thrown away was never done"
    assert staging.empty_trash(NOW) == 1


def test_a_broken_entry_stops_nobody_and_shows_as_corrupt(staging: Staging, tmp_path: Path) -> None:
    accepted = tmp_path / "staging" / "accepted"
    cut, good, late = stage(staging), stage(staging), stage(staging)
    os.truncate(accepted / str(cut), 100)
    empty, foreign, link = new_id(), "README", new_id()
    for name in (str(empty), foreign):
        (accepted / name).touch()
    (accepted / str(link)).symlink_to(accepted / str(good))
    (accepted / str(new_id())).mkdir()

    now = datetime.now(UTC)
    assert staging.due(10, now) == [cut, good, late, empty]
    assert staging.claim(cut) is None
    seen = staging.look(empty)
    assert seen is not None
    assert (seen.quarantined, seen.manifest.id) == (True, empty)
    assert staging.set_broken_aside() == 1
    assert staging.due(10, now) == [good, late]
    shown = list(staging.quarantined())
    assert [entry.manifest.id for entry in shown] == [cut, empty]
    assert [entry.manifest.size for entry in shown] == [100, 0]
    assert {entry.attempts.failure.kind for entry in shown if entry.attempts.failure} == {"corrupt"}
    assert not staging.requeue(cut)
    assert staging.discard(cut)
    assert (accepted / foreign).exists()


def test_a_broken_entry_that_somebody_works_on_is_left_to_them(staging: Staging, tmp_path: Path) -> None:
    upload_id = stage(staging)
    with open_claim(staging, upload_id):
        os.truncate(tmp_path / "staging" / "accepted" / str(upload_id), 100)
        assert staging.set_broken_aside() == 0
    assert staging.set_broken_aside() == 1


def test_an_entry_under_another_entrys_name_is_broken(staging: Staging, tmp_path: Path) -> None:
    accepted = tmp_path / "staging" / "accepted"
    other = new_id()
    (accepted / str(stage(staging))).rename(accepted / str(other))
    assert staging.claim(other) is None
    assert names(tmp_path, "quarantine") == [str(other)]


# ── sweeping


def test_due_is_oldest_first_and_leaves_out_what_waits(staging: Staging) -> None:
    first, second, third, fourth = (stage(staging) for _ in range(4))
    with open_claim(staging, second) as claim:
        claim.start()
        claim.refund(delay=timedelta(seconds=30), reason=BAD)
    now = datetime.now(UTC)
    assert staging.due(2, now) == [first, third]
    assert staging.due(9, now, after=first) == [third, fourth]
    assert staging.due(2, now + timedelta(minutes=1)) == [first, second]
    assert staging.due(0, now) == []
    assert staging.depth()[0] == 4
    assert staging.depth()[1] > 4 * len(BODY)


def test_a_backlog_costs_a_look_at_its_names_only(staging: Staging, tmp_path: Path) -> None:
    whole = stage(staging)
    accepted = tmp_path / "staging" / "accepted"
    rest = [new_id() for _ in range(20_000)]
    for upload_id in rest:
        os.link(accepted / str(whole), accepted / str(upload_id))
    began = monotonic()
    assert staging.due(8, datetime.now(UTC)) == [whole, *rest[:7]]
    assert monotonic() - began < 1


def test_the_sweep_takes_only_uploads_that_nobody_holds(staging: Staging, tmp_path: Path) -> None:
    left, young, held = new_id(), new_id(), new_id()
    incoming = tmp_path / "staging" / "incoming"
    (incoming / str(left)).write_bytes(b"half")
    (incoming / str(young)).write_bytes(b"half")
    with staging.begin(held, expected=None) as upload:
        upload.write(BODY)
        for name in (left, held):
            os.utime(incoming / str(name), (0, 0))
        assert staging.sweep_incoming(timedelta(hours=1)) == 1
        assert names(tmp_path, "incoming") == sorted([str(young), str(held)])
        assert staging.sweep_incoming(NOW) == 1
        upload.commit(manifest(held))
    assert names(tmp_path, "accepted") == [str(held)]


def test_quarantine_can_be_emptied_of_what_is_old_enough(staging: Staging, tmp_path: Path) -> None:
    failed = [in_quarantine(staging) for _ in range(3)]
    waiting = stage(staging)
    (tmp_path / "staging" / "quarantine" / "README").touch()
    count, size = staging.quarantine_depth()
    assert count == 3
    assert size >= 3 * len(BODY)
    assert staging.empty_quarantine(timedelta(hours=1)) == (0, 0)
    assert staging.empty_quarantine(NOW) == (count, size)
    assert staging.quarantine_depth() == (0, 0)
    assert [staging.look(upload_id) for upload_id in failed] == [None] * 3
    assert list(staging.entries()) == [waiting]
    assert staging.empty_trash(NOW) == 3


def test_the_command_empties_it_with_nothing_but_the_disk(staging: Staging, tmp_path: Path) -> None:
    upload_id = in_quarantine(staging)
    variables = {"MILLRACE_HOME": str(tmp_path), "MILLRACE_STAGING__PATH": str(tmp_path / "staging")}
    run = CliRunner(env=variables)
    command = ["staging", "empty-quarantine"]
    assert run.invoke(millrace, [*command, "--older-than", "1", "--yes"]).output.startswith("discarded 0 ")
    assert run.invoke(millrace, command, input="n\n").exit_code != 0
    assert staging.look(upload_id) is not None
    said = run.invoke(millrace, command, input="y\n")
    assert said.exit_code == 0, said.output
    assert "discarded 1 failed uploads" in said.output
    assert staging.look(upload_id) is None


def test_what_is_no_upload_keeps_no_left_over_one(staging: Staging, tmp_path: Path) -> None:
    """Put links and folders into incoming/ that are not ours, under names as uploads have them."""
    incoming = tmp_path / "staging" / "incoming"
    strangers = [incoming / str(new_id()) for _ in range(6)]
    for stranger in strangers[::2]:
        stranger.symlink_to(tmp_path)
    for stranger in strangers[1::2]:
        stranger.mkdir()
    left_over = [incoming / str(new_id()) for _ in range(20)]
    for path in left_over:
        path.touch()
    assert staging.sweep_incoming(NOW) == len(left_over)
    assert all(one.is_symlink() or one.is_dir() for one in strangers)


def _touched(folder: Path) -> str:
    made = folder / str(new_id())
    made.touch()
    return made.name


def _discarded(staging: Staging) -> str:
    upload_id = in_quarantine(staging)
    staging.discard(upload_id)
    return f"{upload_id}{DISCARDED}"


SWEEPS: dict[str, tuple[str, Callable[[Staging, Path], str], Callable[[Staging], object]]] = {
    "incoming": (
        "staging.sweep-incoming",
        lambda staging, root: _touched(root / "incoming"),
        lambda staging: staging.sweep_incoming(NOW),
    ),
    "accepted": (
        "staging.move-to-quarantine",
        lambda staging, root: _touched(root / "accepted"),
        lambda staging: staging.set_broken_aside(),
    ),
    "quarantine": (
        "staging.move-to-trash",
        lambda staging, root: str(in_quarantine(staging)),
        lambda staging: staging.empty_quarantine(NOW),
    ),
    "trash": (
        "staging.empty-trash",
        lambda staging, root: _discarded(staging),
        lambda staging: staging.empty_trash(NOW),
    ),
}


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("folder", SWEEPS)
def test_what_the_disk_refuses_for_one_file_keeps_no_other(
    staging: Staging, tmp_path: Path, armed: Path, folder: str, number: int
) -> None:
    step, make, sweep = SWEEPS[folder]
    made = [make(staging, tmp_path / "staging") for _ in range(3)]
    arm(armed, f"{step}@{made[number]}", "errno EIO")
    with pytest.raises((OSError, Unavailable)):
        sweep(staging)
    assert names(tmp_path, folder) == [made[number]]
    sweep(staging)
    assert names(tmp_path, folder) == []
