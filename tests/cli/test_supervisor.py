"""The supervisor as a process, with children that cost nothing, and `kill` as its users know it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import troubles
from supervise.processes import Identity
from tests.cli.processes import all_gone, command_of, descendants, identities, running_in

ROOT = Path(__file__).parent.parent.parent
SLEEP = "touch $READY; sleep 1000"
WITH_GRANDCHILD = "sleep 1001 & touch $READY; wait"
DEAF = "trap '' TERM; touch $READY; while :; do sleep 0.1; done"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*children: str, command: list[str] | None = None, **variables: str) -> subprocess.Popen[str]:
        line = command or [sys.executable, "-m", "tests.cli.stand_in", str(tmp_path), *children]
        process = subprocess.Popen(
            line,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        for pid in descendants(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def pid_of(home: Path, name: str) -> int:
    return int(json.loads((home / "run" / f"{name}.pid").read_text())["pid"])


def heard(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return line
    raise AssertionError(f"never said {word!r}: {lines}")


def test_a_dead_child_is_started_again_within_two_seconds_and_said(start: Start, tmp_path: Path) -> None:
    stack = start(f"web={SLEEP}", f"worker={SLEEP}")
    heard(stack, "ready")
    killed = pid_of(tmp_path, "web")
    died_at = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    assert "SIGKILL" in heard(stack, "web died")
    assert time.monotonic() - died_at < 2
    assert pid_of(tmp_path, "web") not in (killed, pid_of(tmp_path, "worker"))


def test_what_a_dead_child_leaves_is_killed(start: Start, tmp_path: Path) -> None:
    stack = start(f"web={WITH_GRANDCHILD}")
    heard(stack, "ready")
    (grandchild,) = identities(descendants(pid_of(tmp_path, "web")))
    os.kill(pid_of(tmp_path, "web"), signal.SIGKILL)
    heard(stack, "web died")
    assert not grandchild.is_alive()


def test_a_child_that_cannot_start_ends_the_stack_with_its_cause(start: Start, tmp_path: Path) -> None:
    stack = start(f"worker={WITH_GRANDCHILD}", "web=echo no disk at all; exit 3")
    output, _ = stack.communicate(timeout=60)
    last = output.strip().splitlines()[-1]
    assert stack.returncode != 0
    assert "failed: web " in last
    assert "no disk at all" in last
    assert list(running_in(tmp_path)) == []


ENDS = ["kill -KILL $$", "echo no disk at all; exit 3"]


@pytest.mark.parametrize("end", ENDS)
def test_a_child_that_dies_again_and_again_is_started_for_ever_and_stops_no_other(
    start: Start, tmp_path: Path, end: str
) -> None:
    """Check this where the child is the web server, and dies before it is ready again."""
    once = f"if [ -e {tmp_path}/was ]; then {end}; fi; touch {tmp_path}/was $READY; sleep 0.3; {end}"
    stack = start(f"worker={SLEEP}", f"web={once}")
    heard(stack, "ready")
    worker = pid_of(tmp_path, "worker")
    lines = [heard(stack, "web died") for _ in range(5)]
    pauses = [float(line.split(" in ")[1].split()[0]) if " in " in line else 0.0 for line in lines]
    assert pauses == [0, 0.5, 1, 2, 4]
    assert pid_of(tmp_path, "worker") == worker
    [trouble] = troubles.known(tmp_path / "troubles")
    assert (trouble.what, trouble.times, trouble.kind) == ("process.web", 5, "process-died")


def test_a_child_that_cannot_even_be_prepared_is_tried_again(start: Start, tmp_path: Path) -> None:
    stack = start(f"web={SLEEP}", f"worker={SLEEP}")
    heard(stack, "ready")
    worker = pid_of(tmp_path, "worker")
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    log.rename(elsewhere)  # no log can be opened
    os.kill(pid_of(tmp_path, "web"), signal.SIGKILL)
    assert "No such file" in heard(stack, "web cannot start")
    elsewhere.rename(log)
    deadline = time.monotonic() + 60
    while not (Identity.of(pid_of(tmp_path, "web")) or time.monotonic() > deadline):
        time.sleep(0.05)
    assert Identity.of(pid_of(tmp_path, "web")) is not None
    assert pid_of(tmp_path, "worker") == worker


@pytest.mark.parametrize("loop", ["supervisor.children", "supervisor.parent", "supervisor.logs"])
def test_a_loop_of_the_supervisor_outlives_an_error(start: Start, tmp_path: Path, loop: str) -> None:
    points = tmp_path / "failpoints"
    points.mkdir()
    (points / f"loop.turn@{loop}").write_text("raise")
    stack = start(f"web={SLEEP}", MILLRACE_FAILPOINTS=str(points), LOG_CHECK_SECONDS="0.1")
    heard(stack, f"{loop} failed and goes on")
    (points / f"loop.turn@{loop}").write_text("sleep 0")
    deadline = time.monotonic() + 60
    while (points / f"loop.turn@{loop}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stack.poll() is None


def make_up(start: Start, tmp_path: Path) -> subprocess.Popen[str]:
    makefile = tmp_path / "Makefile"
    children = " ".join(f'"{word}"'.replace("$", r"\$$") for word in (f"web={WITH_GRANDCHILD}", f"deaf={DEAF}"))
    makefile.write_text(f"up:\n\t@exec {sys.executable} -m tests.cli.stand_in {tmp_path} {children}\n")
    make = start(command=["make", "--no-print-directory", "-f", str(makefile), "up"])
    heard(make, "ready")
    return make


@pytest.mark.parametrize("deliver", [os.kill, os.killpg])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_make_returns_after_the_last_child(
    start: Start, tmp_path: Path, deliver: Callable[[int, int], None], number: signal.Signals
) -> None:
    make = make_up(start, tmp_path)
    everything = identities(descendants(make.pid))
    assert len(everything) >= 4
    deliver(make.pid, number)
    make.communicate(timeout=20)
    assert all_gone(everything, 0.1)


def test_nothing_outlives_a_killed_make(start: Start, tmp_path: Path) -> None:
    make = make_up(start, tmp_path)
    everything = identities(descendants(make.pid))
    make.kill()
    assert all_gone(everything, 20)


def test_children_die_with_a_killed_supervisor(start: Start) -> None:
    stack = start(f"web={SLEEP}", f"deaf={DEAF}")
    heard(stack, "ready")
    children = identities(descendants(stack.pid))
    stack.kill()
    assert all_gone([child for child in children if "bash" in command_of(child.pid)])


def test_the_next_start_stops_what_is_left_over(start: Start, tmp_path: Path) -> None:
    first = start(f"web={WITH_GRANDCHILD}")
    heard(first, "ready")
    (left_over,) = identities(descendants(pid_of(tmp_path, "web")))
    first.kill()
    first.wait()
    assert left_over.is_alive()
    second = start(f"web={SLEEP}")
    heard(second, "stopped web")
    heard(second, "ready")
    assert not left_over.is_alive()


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(start: Start, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        identity = Identity.of(stranger.pid)
        assert identity is not None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (tmp_path / "run").mkdir()
        record = {"pid": stranger.pid, "started": identity.started - 1, "boot": boot}
        (tmp_path / "run" / "web.pid").write_text(json.dumps(record))
        heard(start(f"web={SLEEP}"), "ready")
        assert stranger.poll() is None
        stranger.kill()


def test_the_second_supervisor_of_a_home_is_refused(start: Start, tmp_path: Path) -> None:
    first = start(f"web={SLEEP}")
    heard(first, "ready")
    output, _ = start(f"web={SLEEP}").communicate(timeout=20)
    assert "already running" in output
    assert str(first.pid) in output
    assert Identity.of(pid_of(tmp_path, "web")) is not None
