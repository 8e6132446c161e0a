"""From the first byte of an upload to its entry, in one process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from core.errors import AlreadyExists, StagingFull, Unavailable
from core.model import Attempts, Durability
from storage.staging.staging import Staging
from tests.storage.staging.uploads import (
    BODY,
    arm,
    manifest,
    names,
    new_id,
    open_claim,
    settings,
    stage,
)


@pytest.mark.parametrize("expected", [0, None, len(BODY)])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_an_upload_becomes_an_entry_of_exactly_its_bytes(staging: Staging, size: int, expected: int | None) -> None:
    body, upload_id = os.urandom(size), new_id()
    with staging.begin(upload_id, expected=expected) as incoming:
        for start in range(0, size, 700_000):
            incoming.write(memoryview(body)[start : start + 700_000])
        assert incoming.size == size
        assert incoming.view().read() == body
        assert staging.look(upload_id) is None
        incoming.commit(manifest(upload_id, body))
    entry = staging.look(upload_id)
    assert entry is not None
    assert entry.manifest == manifest(upload_id, body, accepted_at=entry.manifest.accepted_at)
    assert (entry.attempts, entry.quarantined) == (Attempts(), False)
    with open_claim(staging, upload_id) as claim:
        assert claim.body().read() == body


@pytest.mark.parametrize("most", [7, 1 << 20])
@pytest.mark.parametrize("more", [b"", b"more than was said"])
def test_a_body_in_one_piece_is_written_whole_with_its_manifest(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, more: bytes, most: int
) -> None:
    """Also when the disk takes little at a time, and when another piece comes after all."""
    pwritev, calls = os.pwritev, []

    def reluctant(descriptor: int, pieces: list[memoryview], offset: int) -> int:
        calls.append(offset)
        return pwritev(descriptor, [pieces[0][:most]], offset) if most == 7 else pwritev(descriptor, pieces, offset)

    monkeypatch.setattr(os, "pwritev", reluctant)
    upload_id = new_id()
    with staging.begin(upload_id, expected=len(BODY)) as incoming:
        incoming.write(BODY)
        assert incoming.view().read() == BODY
        if more:
            incoming.write(more)
        assert incoming.view().read() == BODY + more
        incoming.commit(manifest(upload_id, BODY + more))
    if most > 7:
        assert len(calls) == (2 if more else 1)
    with open_claim(staging, upload_id) as claim:
        assert claim.body().read() == BODY + more


def test_reserved_space_is_given_back(staging: Staging, tmp_path: Path) -> None:
    upload_id = new_id()
    with staging.begin(upload_id, expected=50_000_000) as incoming:
        held = (tmp_path / "staging" / "incoming" / str(upload_id)).stat()
        assert held.st_blocks * 512 >= 50_000_000
        incoming.write(BODY)
        incoming.commit(manifest(upload_id))
    kept = (tmp_path / "staging" / "accepted" / str(upload_id)).stat()
    assert kept.st_blocks * 512 < 100_000


def test_an_upload_that_is_not_committed_leaves_nothing(staging: Staging, tmp_path: Path) -> None:
    with staging.begin(new_id(), expected=None) as incoming:
        incoming.write(BODY)
    with pytest.raises(RuntimeError), staging.begin(new_id(), expected=None) as incoming:
        raise RuntimeError
    assert names(tmp_path, "incoming") == names(tmp_path, "accepted") == []


def test_a_manifest_of_another_upload_is_a_bug(staging: Staging) -> None:
    upload_id = new_id()
    with staging.begin(upload_id, expected=None) as incoming, pytest.raises(ValueError, match="manifest"):
        incoming.commit(manifest(upload_id, b"other bytes"))


def test_an_entry_has_the_id_of_its_manifest(staging: Staging) -> None:
    upload_id, begun_as = new_id(), new_id()
    with staging.begin(begun_as, expected=None) as incoming:
        incoming.write(BODY)
        incoming.commit(manifest(upload_id))
    assert [staging.look(one) is not None for one in (upload_id, begun_as)] == [True, False]


def test_one_id_is_one_upload(staging: Staging) -> None:
    upload_id = new_id()
    with staging.begin(upload_id, expected=None), pytest.raises(AlreadyExists):
        staging.begin(upload_id, expected=None)
    stage(staging, upload_id=upload_id)


COMMIT_STEPS = ["before-fsync", "after-fsync", "after-rename", "before-dirsync", "after-dirsync"]


@pytest.mark.parametrize("fault", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
@pytest.mark.parametrize("step", ["after-create", "write", *COMMIT_STEPS])
def test_a_disk_that_refuses_is_told_and_leaves_nothing(
    staging: Staging, tmp_path: Path, armed: Path, step: str, fault: str
) -> None:
    arm(armed, f"accept.{step}", f"errno {fault}")
    with pytest.raises(Unavailable) as refused:
        stage(staging)
    assert isinstance(refused.value, StagingFull) == (fault in {"ENOSPC", "EDQUOT"})
    assert fault in refused.value.detail
    assert names(tmp_path, "incoming") == names(tmp_path, "accepted") == []
    stage(staging)
    assert len(names(tmp_path, "accepted")) == 1


def test_nobody_claims_an_entry_before_its_commit_is_through(staging: Staging, armed: Path) -> None:
    arm(armed, "accept.before-dirsync", "sleep 0.5")
    upload_id = new_id()
    accepting = threading.Thread(target=stage, args=(staging, BODY, upload_id))
    accepting.start()
    while staging.look(upload_id) is None:
        pass
    assert staging.claim(upload_id) is None
    accepting.join()
    with open_claim(staging, upload_id):
        pass


@pytest.mark.parametrize(
    ("options", "durability"),
    [
        ({}, Durability.HOST_DISK),
        ({"sync": "data"}, Durability.HOST_CACHE),
        ({"sync": "none"}, Durability.HOST_CACHE),
        ({"ephemeral": True}, Durability.MEMORY),
    ],
)
def test_what_is_synced_is_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], durability: Durability
) -> None:
    staging = Staging.open(settings(tmp_path, **options))
    synced: list[str] = []
    fdatasync, fsync = os.fdatasync, os.fsync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (synced.append("file"), fdatasync(descriptor)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append("directory"), fsync(descriptor)))
    stage(staging)
    assert staging.durability is durability
    assert synced == {"data": ["file"], "none": []}.get(str(options.get("sync")), ["file", "directory"])
