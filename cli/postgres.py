"""`millrace postgres PROGRAM…`: a program with this installation's PostgreSQL, whether or not the service runs.

PostgreSQL's own programs are those of the version that made the cluster, and are connected by themselves. Beside a
running `millrace up`, or with a `database_url` in the settings, it is that server. Otherwise the one of this
MILLRACE_HOME is started for as long as the program runs, made anew if there is none, and nothing else with it: so a
backup is restored before anybody can write.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import click

from cli.interruption import INTERRUPTED, interruptible
from core import settings
from core.errors import Misconfigured
from supervise import postgres_binaries
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from supervise.python_process import program
from supervise.run_directory import RunDirectory

CONNECTED = frozenset({"pg_basebackup", "pg_dump", "pg_dumpall", "pg_isready", "pg_restore", "psql", "vacuumdb"})
"""Programs that take a connection string as `--dbname`."""
OFFLINE = frozenset({"-l", "--list", "-f", "--file", "-V", "--version", "--help", "-?"})
"""With one of these pg_restore needs no database, and refuses one."""
PATIENCE_SECONDS = 20.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="PROGRAM [ARGUMENTS]…")
def postgres(command: tuple[str, ...]) -> None:
    """Run a program with this installation's PostgreSQL: psql, pg_dump, pg_restore, millrace, …

    Where neither `millrace up` runs nor settings name a server, that of this MILLRACE_HOME runs meanwhile, and nothing
    else. The program finds the database's URL in MILLRACE_DATABASE_URL.
    """
    home = Path(os.environ.get("MILLRACE_HOME") or ".millrace").absolute()
    os.environ["MILLRACE_HOME"] = str(home)
    with interruptible(), _database(home) as url:
        argv, variables = connected(command, url, _programs(home))
        code = _run(argv, variables)
    sys.exit(code if code >= 0 else 128 - code)


@contextlib.contextmanager
def _database(home: Path) -> Iterator[str]:
    """The URL of the server, which runs until this is left."""
    run = RunDirectory(home)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(run.locked())
        except Misconfigured:
            found = settings.load().database_url
            if found is None:  # it starts or ends just now
                raise
            yield found.get_secret_value()
            return
        run.clear()
        found = settings.load().database_url
        if found is not None:
            yield found.get_secret_value()
            return
        with _embedded(home, run) as url:
            yield url


@contextlib.contextmanager
def _embedded(home: Path, run: RunDirectory) -> Iterator[str]:
    logs = home / "log"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = Postgres(home / "postgres", run.path)
    child = start(server, logs / "postgres.log")
    try:
        run.record(server.name, child.pid)
        yield server.url
    finally:
        stop([child])
        run.forget(server.name)


def _programs(home: Path) -> Path | None:
    """Where PostgreSQL's programs are that fit. None: those of the PATH, as where only a client is installed."""
    try:
        return postgres_binaries.choose(home / "postgres").directory
    except Misconfigured:
        return None


def connected(command: Sequence[str], url: str, directory: Path | None) -> tuple[list[str], Mapping[str, str]]:
    """The words of the program, with its connection where it takes one, and its environment: a password is seen there
    by its user only, in a command line by everybody."""
    name, *words = command
    path = os.pathsep.join([*([] if directory is None else [str(directory)]), os.environ.get("PATH", os.defpath)])
    variables = {**os.environ, "PATH": path, "MILLRACE_DATABASE_URL": url}
    if name in CONNECTED and not (name == "pg_restore" and _flags(words) & OFFLINE):
        public, password = without_password(url)
        if password is not None:
            variables["PGPASSWORD"] = password
        return [name, f"--dbname={public}", *words], variables
    return [program("millrace") if name == "millrace" else name, *words], variables


def _flags(words: Sequence[str]) -> set[str]:
    return {word.split("=", 1)[0] for word in words}


def without_password(url: str) -> tuple[str, str | None]:
    """A URL of libpq, and the password that was in it: before the host, or among the parameters."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    name, colon, secret = user.partition(":")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    password = dict(parameters).get("password", unquote(secret) if colon else None)
    left = [(key, value) for key, value in parameters if key != "password"]
    return _joined(parts, name + at + hosts, left), password


def _joined(parts: SplitResult, netloc: str, parameters: Sequence[tuple[str, str]]) -> str:
    query = urlencode(parameters, safe="/")
    # urlunsplit leaves the two slashes out where there is no host, which is how a socket is named.
    text = urlunsplit(("", "", parts.path, query, parts.fragment))
    return f"{parts.scheme}://{netloc}{text}"


def _run(argv: Sequence[str], variables: Mapping[str, str]) -> int:
    """Interrupted, the program is told to end, and waited for: its server goes after it."""
    try:
        process = subprocess.Popen(argv, env=dict(variables))  # noqa: S603 - what the user asked for, without a shell
    except OSError as error:
        raise Misconfigured(f"{argv[0]}: {error.strerror}") from None
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        return INTERRUPTED
    finally:
        process.kill()
        process.wait()
