"""A pool child whose worker ends before the child is ready does not outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import os, time
from tasks import base

base._take_over_stores = lambda: os.write(1, b"goes on")
worker = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == worker:
    time.sleep(0.01)
base._orderly_end()
"""


def test_a_child_that_is_orphaned_while_it_starts_ends(tmp_path: Path) -> None:
    environment = os.environ | {"MILLRACE_HOME": str(tmp_path), "MILLRACE_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
