"""`millrace worker` and `millrace beat`: become the Celery process that `millrace up` would have started, for machines
whose processes are looked after by something else (see Procfile)."""

from __future__ import annotations

import os
from typing import NoReturn, get_args

import click

from core import settings
from tasks import commands


@click.command()
@click.argument("kind", type=click.Choice(get_args(commands.Worker)))
@click.option("--pool", type=click.Choice(["prefork", "threads"]), default="prefork", show_default=True)
def worker(kind: commands.Worker, pool: commands.Pool) -> None:
    """Run this host's ingest worker, one that renders only what requests wait for, one that renders everything, one
    for jobs, repair and gc (always with threads), or one for all.

    A store that one process owns (rocksdb) needs `millrace worker all --pool threads`, once, and no other worker.
    """
    _become(commands.worker(kind, settings.load(), pool))


@click.command()
def beat() -> None:
    """Run the clock of the fleet-wide sweeps: one is enough, two do no harm."""
    settings.load()
    _become(commands.beat())


def _become(argv: list[str]) -> NoReturn:
    os.execv(argv[0], argv)  # noqa: S606 - an argument list, never a shell
