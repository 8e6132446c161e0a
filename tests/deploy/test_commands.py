"""Every command line of docker-compose.yml and the Dockerfile that is ours runs here as it stands: the whole line, on
this machine's PostgreSQL, Valkey and S3 server instead of those in containers. What is not tested is the containers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supervise.processes import POLITE, Child, spawn, stop
from supervise.python_process import Process
from tests.deploy.compose import ROOT, SECRETS, argv, dockerfile, image_environment, last_stage, parsed
from tests.s3_server import s3_server

SERVICES: dict[str, dict[str, Any]] = parsed(SECRETS)["services"]
LONG_RUNNING = ("web", "ingest", "sweep", "interactive", "variants", "maintenance", "beat")
PICTURE = ROOT / "examples" / "alpha.png"
BIN = Path(sys.executable).parent


def command(name: str) -> list[str]:
    """The service's own, else the image's; looked up where the image has its programs: beside the interpreter."""
    line: list[str] = SERVICES[name].get("command") or argv("CMD", last_stage())[0]
    return [str(BIN / line[0]), *line[1:]]


@pytest.fixture
def variables(tmp_path: Path, empty_database_url: str, redis_url: str, free_port: int) -> Iterator[dict[str, str]]:
    """What the containers get, with the addresses changed to those of the test's services."""
    with s3_server(tmp_path / "moto.log") as server:
        server.make_bucket("millrace")
        file = tmp_path / "millrace.toml"
        file.write_text((ROOT / "deploy" / "millrace.toml").read_text().replace("http://s3:8333", server.endpoint))
        yield {
            **image_environment(),
            **SERVICES["web"]["environment"],
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "MILLRACE_HOME": str(tmp_path / "home"),
            "MILLRACE_CONFIG": str(file),
            "MILLRACE_DATABASE_URL": empty_database_url,
            "MILLRACE_REDIS_URL": redis_url,
            "HOST": "127.0.0.1",
            "PORT": str(free_port),
        }


@contextmanager
def running(names: tuple[str, ...], environment: Mapping[str, str], logs: Path) -> Iterator[dict[str, Child]]:
    children: dict[str, Child] = {}
    try:
        for name in names:
            children[name] = spawn(Process(name, command(name), environment, POLITE), logs / f"{name}.log")
        yield children
    finally:
        stop(list(children.values()))


def once(line: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_the_same_environment_for_all() -> None:
    assert len({str(sorted(SERVICES[name]["environment"].items())) for name in (*LONG_RUNNING, "migrate")}) == 1


def test_the_whole_stack_by_its_own_command_lines(tmp_path: Path, variables: dict[str, str]) -> None:
    with running(LONG_RUNNING[:1], variables, tmp_path):  # web waits for nobody, and accepts before there is a schema
        early = upload(variables, "early.png", wait=0)
        assert early.status_code == 202
        migrated = once(command("migrate"), variables)
        assert migrated.returncode == 0, migrated.stderr
        with running(LONG_RUNNING[1:], variables, tmp_path) as workers:
            stored = upload(variables, "stored.png", wait=30)
            assert stored.status_code == 201, [path.read_text()[-2000:] for path in tmp_path.glob("*.log")]
            thumbnail = f"http://127.0.0.1:{variables['PORT']}/assets/stored.png/-/content?profile=thumb"
            assert httpx.get(thumbnail, timeout=30).status_code == 200
            kind, *check = SERVICES["web"]["healthcheck"]["test"]
            assert kind == "CMD"
            assert once(check, variables).returncode == 0
            assert [name for name, child in workers.items() if child.has_ended()] == []
        examined = once(command("doctor"), {**variables, "MILLRACE_STAGING__EPHEMERAL": "true"})
        assert examined.returncode == 0, examined.stdout + examined.stderr
    _, *check = SERVICES["web"]["healthcheck"]["test"]
    assert once(check, variables).returncode != 0


def upload(variables: Mapping[str, str], name: str, *, wait: int) -> httpx.Response:
    url = f"http://127.0.0.1:{variables['PORT']}/assets/{name}"
    headers = {"Prefer": f"wait={wait}"} if wait else {}
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.post(url, content=PICTURE.read_bytes(), headers=headers, timeout=60)
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the web server does not come"
            time.sleep(0.2)


def test_the_image_gets_everything_that_millrace_needs_from_the_lock() -> None:
    """What `pip install --no-index --find-links /wheels .[rocksdb]` has to find among the wheels of the lock."""
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    locked = {canonicalize_name(found[1]) for line in lines if (found := re.match(r"([\w.-]+)==", line))}
    (install,) = [line for line in argv("RUN", dockerfile()) if "--no-index" in line]
    extras = {"", *re.findall(r"\[(\w+)\]", install[-1])}
    assert "rocksdb" in extras
    assert _needed("millrace", extras) - {"millrace"} <= locked


def _needed(name: str, extras: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset(extras))]
    while waiting:
        one, wanted = waiting.pop()
        if one in found and wanted <= {""}:
            continue
        found.add(one)
        for line in importlib.metadata.requires(one) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted):
                waiting.append((canonicalize_name(requirement.name), frozenset({"", *requirement.extras})))
    return found


def test_every_step_of_the_build_checks_hashes_or_stays_offline() -> None:
    steps = [line for line in argv("RUN", dockerfile()) if Path(line[0]).name == "pip"]
    assert [line[1] for line in steps] == ["install", "wheel", "install"]
    assert all("--require-hashes" in line or "--no-index" in line for line in steps)
    assert not any(word in (ROOT / "Dockerfile").read_text() for word in ("apt-get", "build-essential", "gcc"))


def test_the_image_has_its_modules_compiled() -> None:
    """Check that the build compiles all of the source, where it lies: the image forbids Python to do so at a start."""
    assert image_environment()["PYTHONDONTWRITEBYTECODE"] == "1"
    steps = dockerfile()
    (compiling,) = [number for number, (word, rest) in enumerate(steps) if word == "RUN" and "compileall" in rest]
    assert json.loads(steps[compiling][1]) == ["/opt/millrace/bin/python", "-m", "compileall", "-q", "."]
    assert ("COPY", ". .") in steps[:compiling]


def test_pip_understands_the_build(tmp_path: Path) -> None:
    """Its options exist together, and a wheel that is not there is an error instead of a download."""
    for line in argv("RUN", dockerfile()):
        if Path(line[0]).name == "pip" and "--no-index" in line:
            here = [str(BIN / "pip"), *line[1:], "--dry-run"]
            here[here.index("/wheels")] = str(tmp_path)
            here[-2] = "a-package-that-is-not-there"
            here.remove("--editable")
            done = once(here, {**os.environ})
            assert done.returncode == 1
            assert "No matching distribution found" in done.stderr


def test_what_is_copied_into_the_image_is_there_and_is_all_that_runs(tmp_path: Path) -> None:
    """With nothing but the allow-list of .dockerignore, the program starts."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    for pattern in patterns[1:]:
        if pattern.startswith("!"):
            source = ROOT / pattern[1:]
            target = tmp_path / pattern[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
    modules = "app.web, cli.main, tasks.celery_app, pipeline.doctor.examine"
    code = f"import {modules}, metadata.migrate as m; print(m.__file__, m.head())"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    where, revision = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert revision != "None"
