"""What `millrace up` runs beside PostgreSQL and Valkey: one table of our own processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from core.addresses import parsed
from core.sections import Web
from core.settings import Settings
from storage.registry import with_one_owner
from supervise.address import Address
from supervise.processes import StopLadder
from supervise.python_process import Process, program
from tasks import commands

_PATIENCE: StopLadder = ((signal.SIGTERM, 9.0), (signal.SIGKILL, 1.0))
"""A process that is killed loses nothing; patience lets uploads end and spares work from being done twice."""


def of_web(web: Web, address: Address) -> dict[str, str]:
    """Return what the web server alone is told: what the command line asks for, and the name in HOST if it is one."""
    found = {
        "MILLRACE_WEB__ALLOW_ANONYMOUS": str(web.allow_anonymous).lower(),
        "MILLRACE_WEB__STOP_DELAY_SECONDS": str(_stop_delay(web)),
    }
    if parsed(address.host) is None:
        found["MILLRACE_WEB__HOSTS"] = json.dumps([*web.hosts, address.host])
    return found


def _stop_delay(web: Web) -> float:
    """Return the delay that is set, else 0: an operator with a balancer sets it, and without one nothing waits."""
    return web.stop_delay_seconds if "stop_delay_seconds" in web.model_fields_set else 0


def _patience_of_web(web: Web) -> StopLadder:
    """Longer than the web server's own, which ends as soon as nothing is under way."""
    return ((signal.SIGTERM, _stop_delay(web) + web.graceful_seconds + 4), (signal.SIGKILL, 1.0))


def processes(
    settings: Settings, address: Address, variables: Mapping[str, str], of_web: Mapping[str, str]
) -> list[Process]:
    """Web comes first: it hears TERM first, and takes no more uploads while the others end."""
    web = [program("gunicorn"), "--config", "python:app.gunicorn_conf", "--bind", str(address), "app.wsgi:application"]
    background = {
        **_workers(settings),
        "beat": commands.beat(),
        "sweep": [program("millrace"), "sweep"],
    }
    return [
        Process("web", web, {**variables, **of_web}, _patience_of_web(settings.web), probe=address.answers),
        *(Process(name, argv, variables, _PATIENCE) for name, argv in background.items()),
    ]


def _workers(settings: Settings) -> dict[str, list[str]]:
    if with_one_owner(settings):
        return {"worker": commands.worker("all", settings, "threads")}
    kinds: tuple[commands.Worker, ...] = ("ingest", "interactive", "variants", "maintenance")
    return {kind: commands.worker(kind, settings) for kind in kinds}


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
