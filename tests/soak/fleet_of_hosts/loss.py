"""An ingest host is lost with uploads that it had accepted and no store had yet; much later its disk comes back.

Meanwhile each of these uploads is said to be lost, and `millrace ingest`, which has the files, sends again what it had
sent there. When the disk is back nothing is lost any more, and nothing is there twice.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults.clients import picture
from tests.faults.stack import ROOT
from tests.soak.fleet_of_hosts.load import Sent

if TYPE_CHECKING:
    from tests.soak.fleet_of_hosts.course import Course

FILES = 60
FOLDER = "sent"
SAID_SECONDS = 90
UNDONE_SECONDS = 120
PATIENCE_SECONDS = 200


def run(course: Course, number: int) -> list[str]:
    fleet, host = course.fleet, course.fleet.ingest[2]
    files = fleet.directory / f"files-{number}"
    files.mkdir()
    for place in range(FILES):
        (files / f"{place}.jpg").write_bytes(picture(place) + f"file {number} {place}".encode())
    host_id = str(host.id)
    fleet.s3.kill()
    course.suffered["s3 killed"] += 1
    time.sleep(1)  # what was under way has ended
    sending = _ingest(course, files, number)
    fleet.until(lambda: len(host.staged("accepted")) >= FILES // 3, 60, f"{host.name} holds what no store has")
    time.sleep(2)
    host.kill()
    lost_at = time.monotonic()
    host.lose_disk()
    course.suffered["host lost with its disk"] += 1
    held = _held(host.home / "lost" / "staging" / "accepted")
    fleet.s3.start()
    _until_each(course, held, host_id, "host-lost", SAID_SECONDS)
    course.figures["host-lost, and said so"] = f"{len(held)}"
    course.figures["host-lost: the last said after"] = f"{time.monotonic() - lost_at:.0f} s"
    said, _ = sending.communicate(timeout=PATIENCE_SECONDS + 60)
    result = json.loads(said)
    course.figures["`millrace ingest`: ready of files"] = f"{result['ready']}/{result['files']}"
    broken = [] if result["ready"] == FILES and sending.returncode == 0 else [f"`millrace ingest` ended with {said}"]
    host.find_disk()
    found_at = time.monotonic()
    host.start()
    _until_each(course, held, host_id, "undone", UNDONE_SECONDS)
    course.figures["host-lost: the last undone after"] = f"{time.monotonic() - found_at:.0f} s"
    course.figures["host-lost, and undone"] = f"{len(held)}"
    _note(course, files, number)
    return broken


def _held(accepted: Path) -> list[str]:
    return [path.name for path in accepted.iterdir()]


def _ingest(course: Course, files: Path, number: int) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).with_name("millrace"))
    words = ["ingest", str(files), "--into", f"/{FOLDER}/{number}", "--url", course.fleet.url, "--json"]
    return subprocess.Popen(
        [program, *words, "--patience", f"{PATIENCE_SECONDS}"],
        cwd=ROOT,
        env=course.fleet.ingest[0].variables,
        stdout=subprocess.PIPE,
        text=True,
    )


def _until_each(course: Course, held: list[str], host_id: str, wanted: str, seconds: float) -> None:
    """Ask for all of them, through the door and with the host that accepted them."""
    waiting: dict[str, Any] = dict.fromkeys(held)
    ends = time.monotonic() + seconds
    with httpx.Client(base_url=course.fleet.url, timeout=30, trust_env=False) as client:
        while waiting:
            for upload_id in list(waiting):
                answer = client.get(f"/ingests/{upload_id}", params={"at": host_id})
                waiting[upload_id] = answer.text[:300]
                if answer.status_code == 200 and _is(answer.json(), wanted):
                    del waiting[upload_id]
            assert not waiting or time.monotonic() < ends, (
                f"loss: {len(waiting)} of {len(held)} not {wanted} after {seconds:g} s: {next(iter(waiting.items()))}"
            )
            time.sleep(0.5)


def _is(said: dict[str, Any], wanted: str) -> bool:
    if wanted == "host-lost":
        return said["state"] == "failed" and said["failure"]["class"] == "host-lost"
    return said["state"] in ("stored", "ready")


def _note(course: Course, files: Path, number: int) -> None:
    """Note what the command sent, so that the checks look for it in the end, as for all else."""
    for path in files.iterdir():
        sent = Sent(
            f"/{FOLDER}/{number}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), key="by the command"
        )
        sent.status, sent.upload_id = 202, ""
        with course.kept.lock:
            course.kept.sent.append(sent)
