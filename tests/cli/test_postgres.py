"""`millrace postgres`: its server runs for one program, and a password shows in no command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.postgres import connected, without_password
from supervise.processes import capture
from tests.cli.storage_command import ROOT


@pytest.mark.parametrize(
    ("url", "public", "password"),
    [
        ("postgresql://millrace@/millrace?host=/run/m", "postgresql://millrace@/millrace?host=/run/m", None),
        ("postgresql://me:p%40ss@db:5432/x?sslmode=require", "postgresql://me@db:5432/x?sslmode=require", "p@ss"),
        ("postgresql://a:1,b:2/x", "postgresql://a:1,b:2/x", None),
        ("postgresql://db/x?user=me&password=p%20s", "postgresql://db/x?user=me", "p s"),
    ],
)
def test_a_url_without_its_password(url: str, public: str, password: str | None) -> None:
    assert without_password(url) == (public, password)


def test_only_programs_of_postgresql_are_connected_and_without_their_password(tmp_path: Path) -> None:
    url = "postgresql://me:secret@db/x"
    argv, variables = connected(["pg_dump", "--format=custom"], url, tmp_path)
    assert argv == ["pg_dump", "--dbname=postgresql://me@db/x", "--format=custom"]
    assert variables["PGPASSWORD"] == "secret"
    assert variables["PATH"].startswith(f"{tmp_path}{os.pathsep}")
    argv, variables = connected(["pg_restore", "--list", "some.dump"], url, tmp_path)
    assert argv == ["pg_restore", "--list", "some.dump"]
    argv, variables = connected(["env", "--null"], url, None)
    assert argv == ["env", "--null"]
    assert (variables["MILLRACE_DATABASE_URL"], variables["PATH"]) == (url, os.environ["PATH"])


def environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return {**inherited, "MILLRACE_HOME": str(home)}


def millrace(*words: str) -> list[str]:
    return [sys.executable, "-m", "cli", *words]


def test_the_server_of_this_home_runs_for_one_program(tmp_path: Path) -> None:
    variables = environment(tmp_path)
    said = capture(millrace("postgres", "psql", "-Atc", "SELECT 6 * 7"), cwd=ROOT, env=variables, seconds=60)
    assert (said.code, said.said.strip()) == (0, "42"), said.complained
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    program = "import sys; sys.exit(7)"
    said = capture(millrace("postgres", sys.executable, "-c", program), cwd=ROOT, env=variables, seconds=60)
    assert said.code == 7
    assert not (tmp_path / "run" / "postgres.pid").exists()


def test_told_to_end_it_ends_the_program_and_then_the_server(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    wait = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)"
    variables = environment(tmp_path / "home")
    command = millrace("postgres", sys.executable, "-c", wait)
    with subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not begun.exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other = capture(millrace("up", "--no-examples"), cwd=ROOT, env=variables, seconds=60)
        assert "already running" in other.complained  # nobody else starts on this home meanwhile
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 130
    assert not (tmp_path / "home" / "postgres" / "postmaster.pid").exists()
