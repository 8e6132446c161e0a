"""No process loads at its start what others need: half a second of CPU for each of ten, and memory for ever."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from storage.registry import BACKENDS
from supervise.python_process import program
from tasks import commands

PICTURES = {"PIL", "pyvips"}
"""Loaded by the first picture."""
TERMINALS = {"rich", "prompt_toolkit"}
OF_ONE_KIND = {"boto3", "botocore", "rocksdict", "storage.s3", "storage.postgres", "storage.rocksdb"}
EVERYWHERE = PICTURES | TERMINALS | OF_ONE_KIND | {"httpx", "alembic"}

WEB = [program("gunicorn"), "--check-config", "--config", "python:app.gunicorn_conf", "app.wsgi:application"]
MILLRACE = program("millrace")

STARTS: dict[str, tuple[list[str], set[str]]] = {
    "web": (WEB, EVERYWHERE),
    "worker": ([*commands.celery(), "worker", "--help"], EVERYWHERE | {"flask"}),
    "beat": ([*commands.celery(), "beat", "--help"], EVERYWHERE | {"flask"}),
    "sweep": ([MILLRACE, "sweep", "--help"], EVERYWHERE | {"flask"}),
    "up": ([MILLRACE, "up", "--help"], EVERYWHERE | {"flask", "celery", "sqlalchemy"}),
    "millrace": ([MILLRACE, "--help"], EVERYWHERE | {"flask", "celery", "sqlalchemy", "pydantic"}),
}
"""What starts → how, and what it does not load."""


def environment(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "MILLRACE_HOME": str(home),
        "MILLRACE_DATABASE_URL": "postgresql:///nobody-asks",
        "MILLRACE_REDIS_URL": "redis://127.0.0.1:1",
        "PYTHONPROFILEIMPORTTIME": "1",
    }


@pytest.mark.parametrize("name", STARTS)
def test_a_start_loads_what_this_process_needs(name: str, tmp_path: Path) -> None:
    argv, others = STARTS[name]
    ended = subprocess.run(argv, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    loaded = set(re.findall(r"^import time: .*\| +([\w.]+)$", ended.stderr, re.MULTILINE))
    assert "core.errors" in loaded
    assert loaded & others == set()


def test_what_is_not_loaded_is_there() -> None:
    """Or the table above would say nothing."""
    names = set().union(*(others for _, others in STARTS.values()))
    assert {name for name in names if find_spec(name) is None} == set()


def test_a_kind_of_store_is_loaded_alone(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from storage.registry import BACKENDS, backend_of\n"
        "for kind in BACKENDS:\n"
        "    backend_of(kind)\n"
        "    print(kind, *(other for other, module in BACKENDS.items() if module in sys.modules))\n"
    )
    argv = [sys.executable, "-c", code]
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    kinds = list(BACKENDS)
    assert [line.split() for line in ended.stdout.splitlines()] == [
        [kind, *kinds[: number + 1]] for number, kind in enumerate(kinds)
    ]
