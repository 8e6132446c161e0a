"""Staging under kill -9 and among processes: nothing half-done is ever visible, and no claim outlives its holder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import Misconfigured
from storage.staging import host
from storage.staging.staging import Staging
from tests.storage.staging.uploads import BODY, arm, names, new_id, settings, stage

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.storage.staging.child", str(os.getpid()), str(tmp_path)]
        children.append(
            subprocess.Popen(
                [*command, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "MILLRACE_FAILPOINTS": str(tmp_path / "failpoints")},
            )
        )
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


def killed_at(start: Start, tmp_path: Path, failpoint: str, *arguments: object) -> None:
    arm(tmp_path / "failpoints", failpoint, "kill")
    assert start(*arguments).wait() == -signal.SIGKILL, f"{failpoint} was not reached"


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        ("after-create", False),
        ("write", False),
        ("before-fsync", False),
        ("after-fsync", False),
        ("after-rename", True),
        ("before-dirsync", True),
        ("after-dirsync", True),
    ],
)
def test_a_killed_accept_leaves_no_entry_or_a_whole_one(start: Start, tmp_path: Path, step: str, visible: bool) -> None:
    staging, upload_id = Staging.open(settings(tmp_path)), new_id()
    killed_at(start, tmp_path, f"accept.{step}", "accept", upload_id)
    entry, claim = staging.look(upload_id), staging.claim(upload_id)
    assert (entry is not None) == (claim is not None) == visible
    if claim is not None:
        with claim:
            assert claim.body().read() == BODY
    assert staging.sweep_incoming(timedelta(0)) == (0 if visible else 1)
    assert names(tmp_path, "incoming") == []


@pytest.mark.parametrize(
    ("step", "done"),
    [("claim.after-start", False), ("claim.before-drop", False), ("claim.after-drop", True)],
)
def test_a_killed_claim_is_free_and_counted(start: Start, tmp_path: Path, step: str, done: bool) -> None:
    staging = Staging.open(settings(tmp_path))
    upload_id = stage(staging)
    killed_at(start, tmp_path, step, "work", upload_id)
    assert staging.due(1, datetime.now(UTC)) == ([] if done else [upload_id])
    claim = staging.claim(upload_id)
    if done:
        assert claim is None
        assert staging.recently_done(upload_id) is not None
    else:
        assert claim is not None
        with claim:
            assert (claim.attempts.total, claim.attempts.unfinished, claim.attempts.running) == (1, 1, True)


@pytest.mark.parametrize("step", ["claim.before-quarantine", "staging.move-to-quarantine", "claim.after-quarantine"])
def test_a_killed_quarantine_never_lacks_its_reason(start: Start, tmp_path: Path, step: str) -> None:
    staging = Staging.open(settings(tmp_path))
    upload_id = stage(staging)
    killed_at(start, tmp_path, step, "give_up", upload_id)
    entry = staging.look(upload_id)
    assert entry is not None
    assert entry.quarantined == (step == "claim.after-quarantine")
    assert (entry.attempts.failure is not None) == (step != "claim.before-quarantine")
    assert entry.attempts.unfinished == 0


def test_kill_9_frees_a_claim(start: Start, tmp_path: Path) -> None:
    staging = Staging.open(settings(tmp_path))
    upload_id = stage(staging)
    holder = start("hold", upload_id)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert staging.claim(upload_id) is None
    holder.kill()
    holder.wait()
    claim = staging.claim(upload_id)
    assert claim is not None
    with claim:
        assert claim.attempts.unfinished == 1


def test_a_child_that_holds_the_descriptor_does_not_keep_a_claim_that_was_left(tmp_path: Path) -> None:
    staging = Staging.open(settings(tmp_path))
    upload_id = stage(staging)
    claim = staging.claim(upload_id)
    assert claim is not None
    with claim:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[claim.body().fileno()]
        )
    again = staging.claim(upload_id)
    child.communicate(b"\n")
    assert again is not None
    with again:
        pass


def test_every_claim_has_one_winner(start: Start, tmp_path: Path) -> None:
    staging = Staging.open(settings(tmp_path))
    upload_ids = [stage(staging, b"small") for _ in range(100)]
    racers = [start("race", *upload_ids), start("race", *reversed(upload_ids)), start("race", *upload_ids)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won: list[str] = []
    for racer in racers:
        assert racer.stdout is not None
        won += racer.stdout.readline().split()
    assert sorted(won) == sorted(map(str, upload_ids))


def test_processes_that_start_at_once_agree_on_the_host(start: Start, tmp_path: Path) -> None:
    arm(tmp_path / "failpoints", "host.before-link", "sleep 0.5\nalways")  # so that all of them find none
    children = [start("tell") for _ in range(4)]
    told = {child.communicate()[0].strip() for child in children}
    assert told == {str(Staging.open(settings(tmp_path)).host_id)}
    assert names(tmp_path, "incoming") == []


def test_a_copied_staging_directory_is_refused_until_adopted(tmp_path: Path) -> None:
    original = Staging.open(settings(tmp_path / "a"))
    upload_id = stage(original)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(Misconfigured, match="millrace staging adopt"):
        Staging.open(settings(tmp_path / "b"))
    adopted = host.adopt(settings(tmp_path / "b"))
    copy = Staging.open(settings(tmp_path / "b"))
    assert copy.host_id == adopted != original.host_id
    assert copy.look(upload_id) is not None
    assert Staging.open(settings(tmp_path / "a")).host_id == original.host_id


def test_a_moved_staging_directory_keeps_its_id(tmp_path: Path) -> None:
    before = Staging.open(settings(tmp_path / "a")).host_id
    (tmp_path / "a").rename(tmp_path / "b")
    assert Staging.open(settings(tmp_path / "b")).host_id == before


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"host_id": "x", "inode": 1}'])
def test_an_unreadable_host_id_names_the_way_out(tmp_path: Path, text: str) -> None:
    Staging.open(settings(tmp_path))
    (tmp_path / "staging" / ".host.json").write_text(text)
    with pytest.raises(Misconfigured, match="millrace staging adopt"):
        Staging.open(settings(tmp_path))


def test_a_directory_that_cannot_be_used_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "staging").write_text("a file")
    with pytest.raises(Misconfigured, match=r"staging\.path"):
        Staging.open(settings(tmp_path))
