"""A fleet in network namespaces: three ingest hosts, four variants hosts, HAProxy, PostgreSQL with 60 connections,
Valkey and an S3 server (SeaweedFS), while hosts are killed whole, cut off, restarted one after the other and lost with
what they hold, and while each service ends and comes back; clients upload, read and delete all the time.

One course takes about eight minutes; there is one for every 20 of `--minutes`. Needs root, iproute2 and HAProxy. All
of it runs in namespaces of its own for network, mounts and processes, so that nothing is left, however it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import core.parent_death
from tests.faults.stack import ROOT
from tests.soak.fleet_of_hosts.course import MINUTES, Course
from tests.soak.fleet_of_hosts.fleet import Fleet
from tests.soak.fleet_of_hosts.network import own_mounts
from tests.system.programs import install, program

PACKAGES = {"haproxy": "haproxy", "ip": "iproute2", "unshare": "util-linux", "mount": "mount"}


def run(minutes: float, seed: int) -> list[str]:
    """Run a course for every `MINUTES`, and one at least."""
    if os.geteuid() != 0:
        return ["only root can make network namespaces"]
    if install("make soak ARGS=fleet", PACKAGES) != 0:
        return ["programs are missing"]
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-"))
    print(f"seed {seed}, logs in {directory}", flush=True)
    guard = [sys.executable, "-I", "-S", core.parent_death.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
    apart = [program("unshare"), "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inside = [
        sys.executable,
        "-m",
        "tests.soak.fleet",
        str(directory),
        str(max(1, round(minutes / MINUTES))),
        str(seed),
    ]
    ended = subprocess.run([*guard, *apart, *inside], cwd=ROOT, check=False)
    try:
        broken: list[str] = json.loads((directory / "broken.json").read_text())
    except OSError:
        return [f"it ended with {ended.returncode} before it could tell: see {directory}"]
    if not broken:
        shutil.rmtree(directory)
    return broken


def _inside(directory: Path, courses: int, seed: int) -> None:
    own_mounts()
    with Fleet(directory) as fleet:
        course = Course(fleet, seed)
        broken = course.run(courses)
        course.tell()
    (directory / "broken.json").write_text(json.dumps(broken))


if __name__ == "__main__":
    _inside(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
