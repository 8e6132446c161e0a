"""`millrace doctor` run by a test, and what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.doctor import doctor as command
from tests.rclone_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY

ROOT = Path(__file__).parents[2]
Settings = dict[str, str]


@dataclass(frozen=True)
class Said:
    code: int
    text: str
    errors: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.text.startswith("{"), self.errors
        said: dict[str, Any] = json.loads(self.text)
        return said

    def finding(self, subject: str, check: str) -> dict[str, Any]:
        found = {one["check"]: one for one in self.json["findings"][subject]}
        assert check in found, self.text
        finding: dict[str, Any] = found[check]
        return finding

    def problems(self) -> list[str]:
        return [
            f"{subject}: {one['check']}"
            for subject, found in self.json["findings"].items()
            for one in found
            if one["grade"] == "problem"
        ]


def environment(home: Path, **variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return {**inherited, "MILLRACE_HOME": str(home), **variables}


def doctor(home: Path, *arguments: str, **variables: str) -> Said:
    """In this process: starting one costs more than most examinations."""
    done = CliRunner().invoke(command, arguments, env={"MILLRACE_HOME": str(home), **variables})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def own_process(home: Path, *arguments: str, **variables: str) -> Said:
    argv = [sys.executable, "-m", "cli", "doctor", *arguments]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment(home, **variables), capture_output=True, text=True, timeout=120
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def services(database_url: str, redis_url: str) -> Settings:
    return {"MILLRACE_DATABASE_URL": database_url, "MILLRACE_REDIS_URL": redis_url}


def s3_options(endpoint: str, **more: object) -> dict[str, object]:
    return {
        "kind": "s3",
        "bucket": "probes",
        "endpoint_url": endpoint,
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY,
        "addressing_style": "path",
        **more,
    }
