"""The whole fault suite with a lock that says yes to everybody, and once more with one that says no to everybody: no
promise rests on a lock. Ends when the suite does, whatever `--minutes` says."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.faults.stack import ROOT


def run(_minutes: float, _seed: int) -> list[str]:
    broken: list[str] = []
    for kind in ("always", "never"):
        print(f"tests/faults with locks.kind = {kind}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "tests/faults", "-q", "-p", "no:cacheprovider"],
            cwd=ROOT,
            env={**os.environ, "STACK_SETTINGS": f'\n[locks]\nkind = "{kind}"\n'},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(done.stdout[-2000:], flush=True)
        if done.returncode != 0:
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            broken += [f"{kind}: {line}" for line in failed or [f"pytest ended with {done.returncode}"]]
    return broken
