"""The store's conformance suite and the line on SeaweedFS, the S3 server of docker-compose.yml, with its bucket synced.
Ends when the tests do, without regard to `--minutes`."""

from __future__ import annotations

import subprocess
import sys

from tests.faults.stack import ROOT

FILES = ("conformance.py", "line.py")  # not named test_…: `make test` has the same suites on lighter servers


def run(_minutes: float, _seed: int) -> list[str]:
    files = [f"tests/soak/on_seaweedfs/{name}" for name in FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout[-3000:], flush=True)
    if done.returncode == 0:
        return []
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed or [f"pytest ended with {done.returncode}"]
