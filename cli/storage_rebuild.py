"""`millrace storage rebuild`: a database made anew from the catalogue and the stores."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.interruption import INTERRUPTED, interruptible
from cli.sanitize import printable
from core import settings
from core.errors import AlreadyExists, Misconfigured
from core.settings import Settings
from metadata import migrate
from pipeline.recovery import rebuilding
from pipeline.recovery.rebuilding import Report
from pipeline.services import build
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from supervise.run_directory import RunDirectory

DATABASE_SECONDS: Final = 2 * 86_400.0
"""For the one transaction. A server that hangs for so long is given up."""
LINE_SECONDS: Final = 10.0
SHOWN: Final = 20


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what a rebuild would come to, beside any database; change nothing.")
@click.option(
    "--save-unnamed",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Copy originals of which no segment tells into this folder, for `millrace ingest`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def rebuild(dry_run: bool, save_unnamed: Path | None, as_json: bool) -> None:
    """Make a lost database anew, from the catalogue and what the stores hold.

    The database must be empty. Where `millrace up` brings its own PostgreSQL, stop it and move MILLRACE_HOME/postgres
    away; this command makes a new one. All is written in one transaction: killed, it has changed nothing, and the same
    command begins again. Exits with 1 where something is missing or unnamed; see docs/recovery.md.
    """
    try:
        with interruptible(), _configured(settings.load(), dry_run) as configured, _told() as told:
            # One connection for the transaction, and one to ask beside it what was said of stores.
            services = build(configured, pool_size=2, database_seconds=DATABASE_SECONDS)
            try:
                report = rebuilding.rebuild(services, told, dry_run=dry_run, save_unnamed=save_unnamed)
            finally:
                services.close()
    except AlreadyExists as error:
        raise AlreadyExists(
            f"{error.detail}, and a rebuild fills an empty one. Stop Millrace, make a new database (docs/recovery.md),"
            " and run this again before you start it"
        ) from None
    except KeyboardInterrupt:
        click.echo("Nothing was changed.", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps(_to_json(report, dry_run), ensure_ascii=False))
    else:
        _print(report, dry_run)
    sys.exit(0 if report.complete else 1)


@contextmanager
def _configured(found: Settings, dry_run: bool) -> Iterator[Settings]:
    """The database that settings name, migrated; or, where they name none, our own one, which only we use meanwhile. A
    dry run asks no database, and makes none.

    Raises:
        Misconfigured: it was never migrated; somebody uses this home.
    """
    if dry_run:
        nobody = SecretStr("postgresql:///nobody?host=/nonexistent")
        yield found.model_copy(update={"database_url": found.database_url or nobody})
        return
    if found.database_url is not None:
        if migrate.current(found.database_url) != migrate.head():
            raise Misconfigured("the database has not this version's schema: run `millrace migrate`")
        yield found
        return
    run = RunDirectory(found.home)
    with run.locked():
        run.clear()
        server = Postgres(found.home / "postgres", run.path)
        logs = found.home / "log"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        child = start(server, logs / "postgres.log")
        try:
            migrate.upgrade(server.url)
            yield found.model_copy(update={"database_url": SecretStr(server.url)})
        finally:
            stop([child])


@contextmanager
def _told() -> Iterator[Any]:
    """A bar on a terminal, else a line now and then; on the error stream."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]:,}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    next_line = time.monotonic() + LINE_SECONDS
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int | None) -> None:
            nonlocal next_line
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what).replace("[", "\\["), total=total, done=0)
            bars.update(tasks[what], completed=done, total=total, done=done)
            if bars.disable and time.monotonic() > next_line:
                next_line = time.monotonic() + LINE_SECONDS
                click.echo(printable(f"{what}: {done:,}" + (f" of {total:,}" if total else "")), err=True)

        yield told


def _to_json(report: Report, dry_run: bool) -> dict[str, Any]:
    loaded, sources = report.loaded, report.sources
    return {
        "dryRun": dry_run,
        "complete": report.complete,
        "installation": report.installation and str(report.installation),
        "segments": sources.segments,
        "lines": sources.lines,
        "damaged": sources.damaged,
        "objects": sources.objects,
        "assets": loaded.assets,
        "deleted": loaded.deleted,
        "replicas": loaded.replicas,
        "lacking": loaded.lacking,
        "variants": loaded.variants,
        "toRender": loaded.to_render,
        "missing": loaded.missing,
        "missingAssets": [
            {"id": str(one.id), "path": one.path, "entry": one.entry, "sha256": one.blob.sha256.hex()}
            for one in loaded.missing_assets
        ],
        "renumbered": [
            {"id": str(one.id), "path": one.path, "entry": entry, "was": one.entry} for one, entry in loaded.renumbered
        ],
        "unnamed": report.unnamed,
        "unnamedBytes": report.unnamed_bytes,
        "unnamedObjects": [
            {"store": one.store, "key": one.key, "size": one.size, "modifiedAt": one.modified_at.isoformat()}
            for one in report.unnamed_objects
        ],
        "saved": report.saved,
    }


def _print(report: Report, dry_run: bool) -> None:
    loaded, sources = report.loaded, report.sources
    made = "would be" if dry_run else "are"
    click.echo(
        f"{sources.segments:,} segments with {sources.lines:,} lines, and {sources.objects:,} objects were read."
    )
    click.echo(f"{loaded.assets:,} assets and {loaded.deleted:,} deleted ones {made} recorded.")
    click.echo(f"{loaded.variants:,} variants need no rendering.")
    if loaded.to_render or loaded.lacking:
        click.echo(f"To be made: {loaded.to_render or 0:,} variants, and {loaded.lacking:,} replicas from others.")
    for name in sources.damaged:
        click.echo(printable(f"Damaged, and read as far as it goes: {name}"))
    for asset, entry in loaded.renumbered:
        click.echo(printable(f"Entry {asset.entry} of {asset.path} was given twice: one is entry {entry} now"))
    if loaded.missing:
        click.echo(f"{loaded.missing:,} assets {made} recorded, and no store has their original:")
    for asset in loaded.missing_assets[:SHOWN]:
        click.echo(printable(f"  {asset.path}, entry {asset.entry}: {asset.blob.sha256.hex()}"))
    if report.unnamed:
        _print_unnamed(report)


def _print_unnamed(report: Report) -> None:
    click.echo(f"{report.unnamed:,} objects ({report.unnamed_bytes / 1e6:,.1f} MB) are named by no segment:")
    for one in report.unnamed_objects:
        at = one.modified_at.isoformat(timespec="seconds")
        click.echo(printable(f"  {one.store}: {one.key}, {one.size:,} bytes, {at}"))
    if report.unnamed > len(report.unnamed_objects):
        click.echo(f"  … and {report.unnamed - len(report.unnamed_objects):,} more")
    if report.saved:
        click.echo(f"{report.saved:,} pictures are saved: look at them, and send what you want with `millrace ingest`.")
    else:
        click.echo(
            "Originals of the last minute are among them. `millrace storage rebuild --dry-run --save-unnamed DIR`"
            " copies them, before `millrace storage gc` removes what is left."
        )
