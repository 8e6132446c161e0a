"""`millrace up`: the whole service on one machine, in the foreground, ended by Ctrl-C or TERM.

Everything is checked before anything starts: settings, the port, another `up` on the same home. Nothing it started is
left running when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import SecretStr

from cli.terminal import say
from core import settings, troubles
from core.addresses import is_loopback
from core.errors import MillraceError, Misconfigured
from core.sections import ANONYMOUS
from core.settings import Settings
from supervise import stack
from supervise.address import Address
from supervise.embedded_postgres import Postgres
from supervise.embedded_valkey import Valkey
from supervise.make_signals import MakeParent
from supervise.processes import Service
from supervise.run_directory import RunDirectory, in_memory
from supervise.shutdown_signal import Stop
from supervise.supervisor import StackFailed, Supervisor


@click.command()
@click.option("--ephemeral", is_flag=True, help="Keep everything in memory; nothing is left after the end.")
@click.option("--no-examples", is_flag=True, help="Do not send examples/ on the first start.")
@click.option(
    "--allow-anonymous",
    is_flag=True,
    help="Listen on HOST though other machines reach it: all who do may do everything.",
)
def up(ephemeral: bool, no_examples: bool, allow_anonymous: bool) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, the web server, the workers.

    PORT (8080), HOST (127.0.0.1), MILLRACE_HOME (./.millrace) and MILLRACE_CONFIG come from the environment.
    """
    home = Path(os.environ.get("MILLRACE_HOME") or ".millrace").absolute()
    os.environ["MILLRACE_HOME"] = str(home)  # everything that looks for our processes looks for this very word
    stop = Stop.on((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    run = RunDirectory(home)
    with run.locked():
        for name in run.clear():
            say(f"stopped {name}, left over from an earlier run")
        configured = _heeding(settings.load(), allow_anonymous)
        address = Address.from_environment(os.environ).reserved()
        with _data_home(run, home, ephemeral) as data:
            plan = _Plan(configured, address, data, run, ephemeral, not no_examples)
            _check_audience(plan)
            _check(_of_children(plan))
            _run(plan, stop)
    say("stopped")


@dataclass(frozen=True)
class _Plan:
    settings: Settings
    address: Address
    home: Path
    run: RunDirectory
    ephemeral: bool
    examples: bool


def _heeding(configured: Settings, allow_anonymous: bool) -> Settings:
    if not allow_anonymous:
        return configured
    return configured.model_copy(update={"web": configured.web.model_copy(update={"allow_anonymous": True})})


def _check_audience(plan: _Plan) -> None:
    if not plan.settings.web.allow_anonymous and not is_loopback(plan.address.host):
        raise Misconfigured(ANONYMOUS.format(plan.address.host))


def _check(configured: Settings) -> None:
    """Meet now what would stop the children one by one: stores, profiles, a copied staging directory."""
    from pipeline.services import build

    somewhere = configured.database_url or SecretStr("postgresql:///not-asked-yet")
    services = build(configured.model_copy(update={"database_url": somewhere}))
    try:
        services.staging.host_id  # noqa: B018 - opening it is the check
    finally:
        services.close()


def _run(plan: _Plan, stop: Stop) -> None:
    logs = plan.home / "log"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    troubles.keep_in(plan.home / "troubles")
    make = MakeParent()
    supervisor = Supervisor(plan.run, logs, say)
    try:
        with contextlib.suppress(_Stopped):
            urls = _start(plan, supervisor, stop)
            _announce(plan, logs)
            if plan.examples:
                from cli import first_run  # with what draws its bar and speaks HTTP: it is wanted once

                first_run.begin(plan.home, urls["http_url"], stop, say)
            supervisor.watch(stop, lambda: stop.set() if make.wants_us_to_end() else None)
        say("stopping")
    except MillraceError as failure:
        if stop.is_set():
            return  # Ctrl-C reaches initdb too: that it was cut short is no failure
        if plan.ephemeral or not isinstance(failure, StackFailed):
            raise
        raise StackFailed(f"{failure.detail} (logs: {logs})") from None
    finally:
        plan.run.unpublish()
        supervisor.stop()


class _Stopped(Exception):
    """We were asked to end while still starting."""


def _start(plan: _Plan, supervisor: Supervisor, stop: Stop) -> dict[str, str]:
    urls = _start_services(plan, supervisor, stop)
    _migrate(_of_children(plan), urls["database_url"])
    if stop.is_set():
        raise _Stopped
    urls["http_url"] = plan.address.url
    variables = stack.variables(plan.home, urls, ephemeral=plan.ephemeral)
    web = stack.of_web(plan.settings.web, plan.address)
    processes = stack.processes(_of_children(plan), plan.address, variables, web)
    supervisor.start(processes)
    _wait(supervisor, processes[:1], stop)
    plan.run.publish(urls)
    return urls


def _of_children(plan: _Plan) -> Settings:
    """The settings as the children will read them."""
    changes: dict[str, object] = {"home": plan.home}
    if plan.ephemeral:
        changes["staging"] = plan.settings.staging.model_copy(update={"ephemeral": True, "path": plan.home / "staging"})
    return plan.settings.model_copy(update=changes)


def _start_services(plan: _Plan, supervisor: Supervisor, stop: Stop) -> dict[str, str]:
    """PostgreSQL and Valkey side by side, but for those the settings name."""
    urls: dict[str, str] = {}
    services: list[Service] = []
    for name, given in (("database_url", plan.settings.database_url), ("redis_url", plan.settings.redis_url)):
        if given is not None:
            urls[name] = given.get_secret_value()
            continue
        embedded = (
            Postgres(plan.home / "postgres", plan.run.path, durable=not plan.ephemeral)
            if name == "database_url"
            else Valkey(plan.home / "valkey", plan.run.path)
        )
        urls[name] = embedded.url
        services.append(embedded)
        supervisor.start([embedded])
    _wait(supervisor, services, stop)
    return urls


def _wait(supervisor: Supervisor, services: Sequence[Service], stop: Stop) -> None:
    supervisor.wait_until_ready(services, stop=stop)
    if stop.is_set():
        raise _Stopped


def _migrate(configured: Settings, database_url: str) -> None:
    from cli.migrate import bring_up_to_date

    bring_up_to_date(configured.model_copy(update={"database_url": SecretStr(database_url)}), say)


def _announce(plan: _Plan, logs: Path) -> None:
    url = plan.address.url
    say(f"Millrace listens on HOST={plan.address.host} PORT={plan.address.port}; data and logs are in {plan.home}")
    if plan.ephemeral:
        where = "in memory" if in_memory(plan.home) else "in a temporary directory (memory has too little room)"
        say(f"--ephemeral: everything is {where} and gone when this ends")
    say(f"open {url}/ in a browser, or send a picture: curl -F asset=@photo.jpg {url}/assets/my/photo.jpg")
    say(f"the logs are in {logs}; Ctrl-C ends everything")


@contextlib.contextmanager
def _data_home(run: RunDirectory, home: Path, ephemeral: bool) -> Iterator[Path]:
    if not ephemeral:
        yield home
        return
    with run.temporary_home() as temporary:
        yield temporary
