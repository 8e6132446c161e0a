"""The Procfile runs as it stands, on a PostgreSQL and a Redis that are there already."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.cli.processes import all_gone, descendants, identities

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "examples" / "alpha.png"


def test_every_line_of_the_procfile_runs(tmp_path: Path, database_url: str, redis_url: str, free_port: int) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MILLRACE_HOME": str(tmp_path),
        "MILLRACE_DATABASE_URL": database_url,
        "MILLRACE_REDIS_URL": redis_url,
        "PORT": str(free_port),
    }
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if line and not line.startswith("#")]
    commands = dict(line.split(": ", 1) for line in lines)
    assert set(commands) == {"web", "ingest", "interactive", "variants", "maintenance", "beat", "sweep"}
    log = (tmp_path / "log").open("w")
    processes = {
        name: subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        for name, command in commands.items()
    }
    log.close()
    everything = []
    try:
        location = _upload(f"http://127.0.0.1:{free_port}", tmp_path / "log")
        assert location == "/assets/procfile.png/-/entry/0"
        everything = identities(pid for process in processes.values() for pid in descendants(process.pid))
        assert [name for name, process in processes.items() if process.poll() is not None] == []
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(20)
    assert all_gone(everything)


def _upload(url: str, log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(
                f"{url}/assets/procfile.png",
                content=PICTURE.read_bytes(),
                headers={"Prefer": "wait=20", "Idempotency-Key": "once"},
                timeout=30,
            )
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code == 201:
            return str(answer.headers["Location"])
    raise AssertionError(log.read_text()[-3000:])
