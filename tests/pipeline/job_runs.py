"""Running jobs in tests: here, and in a process that is killed at a failpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

from core.model import Job
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS, create
from tests.pipeline.line import Line

_CODE = """
import json
import sys
from pathlib import Path
from uuid import UUID
from core.sections import Placement
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS
from tests.pipeline.test_placement import lined

made = lined(Path(sys.argv[1]), sys.argv[2], *(Placement(**rule) for rule in json.loads(sys.argv[4])))
jobs.run(made.services, KINDS, UUID(sys.argv[3]))
"""


def run(line: Line, kind: str, watch: Callable[[Job], None] = lambda job: None, **arguments: object) -> Job:
    job = create(line.services, kind, arguments)
    done = jobs.run(line.services, KINDS, job.id, watch=watch)
    assert done is not None
    return done


def killed(line: Line, home: Path, job: Job) -> None:
    """Works on the job in a process of its own, which the armed failpoint kills."""
    url = line.settings.database_url
    assert url is not None
    rules = json.dumps([rule.model_dump(mode="json") for rule in line.settings.placement])
    command = [sys.executable, "-c", _CODE, str(home), url.get_secret_value(), str(job.id), rules]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL


def go_on(line: Line, job_id: UUID) -> Job:
    """As soon as the lease of the dead one has ended."""
    for _ in range(300):
        done = jobs.run(line.services, KINDS, job_id)
        if done is not None:
            return done
        time.sleep(0.1)
    raise AssertionError("nobody got the job")


def contents(home: Path) -> Mapping[str, bytes]:
    """Every file of every store."""
    folders = (home / name for name in ("main", "fast", "far"))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_bytes() for path in files}
