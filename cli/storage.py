"""`millrace storage`: what an operator does with the object stores."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict

import click
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from cli import (
    storage_catch_up,
    storage_gc,
    storage_identify,
    storage_migrate,
    storage_policy,
    storage_rebuild,
    storage_rules,
    storage_verify,
)
from core import settings
from core.errors import Misconfigured
from pipeline.services import build
from storage.bench import Bench, Measured
from storage.interface import ObjectStore
from storage.registry import open_stores
from storage.staging import installation
from supervise.shutdown_signal import Stop

_SIZES = "20KiB,5MiB"


@click.group()
def storage() -> None:
    """The object stores."""


for _command in (
    storage_migrate.migrate,
    storage_verify.verify,
    storage_gc.gc,
    storage_identify.identify,
    storage_policy.command,
    storage_rules.command,
    storage_catch_up.command,
    storage_migrate.jobs,
    storage_migrate.state,
    storage_rebuild.rebuild,
):
    storage.add_command(_command)


def _parse_sizes(_context: click.Context, _parameter: click.Parameter, value: str) -> list[int]:
    try:
        return [int(TypeAdapter(ByteSize).validate_python(word.strip())) for word in value.split(",")]
    except ValidationError:
        raise click.BadParameter("sizes as in 20KiB,5MiB") from None


@storage.command()
@click.option("--store", "names", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option("--sizes", default=_SIZES, show_default=True, callback=_parse_sizes, help="Of the bodies, by commas.")
@click.option(
    "--seconds", default=2.0, show_default=True, type=click.FloatRange(0, min_open=True), help="For each row."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def bench(names: tuple[str, ...], sizes: list[int], seconds: float, as_json: bool) -> None:
    """Measure put, get, range, head and delete of each store, one caller at a time.

    Whatever it writes it removes, also when it is interrupted.
    """
    measured = []
    stop = Stop.on((signal.SIGINT, signal.SIGTERM))
    with _progress() as progress:
        for store in _chosen(names):
            try:
                for size in sizes:
                    task = progress.add_task(f"{store.name}: bodies of {size:,} bytes")
                    measured += _measure(store, size, seconds, stop)
                    progress.remove_task(task)
            finally:
                store.close()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in measured]))
    else:
        _print(measured)


def _chosen(names: tuple[str, ...]) -> list[ObjectStore]:
    """Return the named stores, or all: those that this installation filled, or new ones; without a database, any."""
    configured = settings.load()
    if configured.database_url is None:
        stores = open_stores(configured, owner=True)
        if installation.kept(configured) is None:  # nothing was ever started here
            for store in stores.values():
                store.establish()
    else:
        stores = dict(build(configured, owns_stores=True).stores)
    unknown = [name for name in names if name not in stores]
    if unknown:
        raise Misconfigured(f"no store is called {', '.join(unknown)} (there is: {', '.join(stores)})")
    return [stores[name] for name in names or stores]


def _measure(store: ObjectStore, size: int, seconds: float, stop: Stop) -> list[Measured]:
    run = Bench(store, seconds=seconds, interrupted=stop.is_set)
    try:
        return list(run.run(size))
    finally:
        run.clean_up()


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _print(measured: list[Measured]) -> None:
    numbers = [Column(name, justify="right") for name in ("size", "rounds", "p50 ms", "p99 ms", "MB/s")]
    table = Table("store", "operation", *numbers)
    for one in measured:
        rate = "" if one.mb_per_s is None else f"{one.mb_per_s:,.1f}"
        table.add_row(
            escape(one.store),
            one.operation,
            f"{one.size:,}",
            f"{one.rounds:,}",
            f"{one.p50_ms:,.2f}",
            f"{one.p99_ms:,.2f}",
            rate,
        )
    Console().print(table)
