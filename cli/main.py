"""The `millrace` command. Each subcommand is a module, imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys

import click

from core.errors import MillraceError, Misconfigured
from core.loading import uncollected
from millrace_client.errors import ClientError

_COMMANDS = {
    "beat": ("cli.worker", "Run the clock of the fleet-wide sweeps."),
    "config": ("cli.config", "Print the effective settings, secrets masked."),
    "doctor": ("cli.doctor", "Examine stores, PostgreSQL, Redis and staging."),
    "failures": ("cli.failures", "Show what failed; have it tried again or let go."),
    "ingest": ("cli.ingest", "Send folders of pictures, and wait until they are ready."),
    "migrate": ("cli.migrate", "Bring the database to this version's schema."),
    "postgres": ("cli.postgres", "Run psql, pg_dump, pg_restore, … with this installation's PostgreSQL."),
    "staging": ("cli.staging", "Look after this host's staging directory."),
    "storage": ("cli.storage", "Look after the object stores; measure them."),
    "sweep": ("cli.sweep", "Run this host's sweep."),
    "up": ("cli.up", "Run everything on this machine."),
    "worker": ("cli.worker", "Run one Celery worker."),
}
"""Name → the module that holds a click command under the same name, and one line about it."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        with uncollected():
            command: click.Command = getattr(importlib.import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="millrace")
def millrace() -> None:
    """Takes images in at volume, never loses one, and makes their variants in the background."""


def main() -> None:
    """Errors of ours are one clear line and exit 1 (2: the settings), never a traceback."""
    try:
        millrace(standalone_mode=True)
    except MillraceError as error:
        sys.stderr.write(f"millrace: {error.detail}\n")
        sys.exit(2 if isinstance(error, Misconfigured) else 1)
    except ClientError as error:
        sys.stderr.write(f"millrace: {error}\n")
        sys.exit(1)
