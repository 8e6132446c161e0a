"""What `millrace up` runs beside PostgreSQL and Valkey: one table of our own processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from cli.address import Address
from cli.own_process import Process, program
from core.settings import Settings
from tasks import commands


def background(settings: Settings, variables: Mapping[str, str]) -> list[Process]:
    """A worker that is killed loses nothing; the patience only spares work from being done twice."""
    table = {
        "ingest": commands.worker("ingest", settings),
        "variants": commands.worker("variants", settings),
        "beat": commands.beat(),
        "sweep": [program("millrace"), "sweep"],
    }
    ladder = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 1.0))
    return [Process(name, argv, variables, ladder) for name, argv in table.items()]


def web(address: Address, variables: Mapping[str, str]) -> Process:
    argv = [
        program("gunicorn"), "--config", "python:app.gunicorn_conf", "--bind", str(address), "app.wsgi:application",
    ]  # fmt: skip
    ladder = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 1.0))
    return Process("web", argv, variables, ladder, probe=address.answers)


def variables(home: Path, urls: Mapping[str, str], *, ephemeral: bool) -> dict[str, str]:
    """The environment of our own processes: ours, and what makes them find the same services as we do."""
    found = {
        **os.environ,
        "MILLRACE_HOME": str(home),
        **{f"MILLRACE_{name.upper()}": url for name, url in urls.items()},
    }
    config = os.environ.get("MILLRACE_CONFIG")
    if config:
        found["MILLRACE_CONFIG"] = str(Path(config).absolute())
    if ephemeral:
        found |= {"MILLRACE_STAGING__EPHEMERAL": "true", "MILLRACE_STAGING__PATH": str(home / "staging")}
    return found
