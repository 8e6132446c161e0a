"""The `millrace` command. Each subcommand is a module, imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys

import click

from core.errors import MillraceError, Misconfigured

_COMMANDS = {
    "beat": "cli.worker",
    "config": "cli.config",
    "migrate": "cli.migrate",
    "staging": "cli.staging",
    "sweep": "cli.sweep",
    "up": "cli.up",
    "worker": "cli.worker",
}
"""Name → the module that holds a click command under the same name."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(module), cmd_name)
        return command


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
