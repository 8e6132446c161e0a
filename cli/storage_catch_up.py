"""`millrace storage catch-up`: after the database was restored from a backup."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.interruption import interruptible
from cli.sanitize import printable
from core import settings
from pipeline.jobs.as_json import to_camel
from pipeline.recovery.catching_up import CaughtUp, catch_up
from pipeline.services import build
from storage.interface import Stored


@click.command(name="catch-up")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--list", "listed", is_flag=True, help="Print each object that the database does not know.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a line for each of these objects, then the counts.")
def command(dry_run: bool, listed: bool, as_json: bool) -> None:
    """Bring a database that was restored from a backup up to what the stores hold.

    Numbers go on beyond those of all objects, so that no name is used twice, and objects that were moved or repaired
    since the backup are found again, each after its bytes were read. Best before the service is started. Removes
    nothing, and may be run again at any time.
    """

    def tell(store: str, one: Stored) -> None:
        if not listed:
            return
        if as_json:
            said = {"store": store, "key": one.key, "size": one.size, "modifiedAt": one.modified_at.isoformat()}
            click.echo(json.dumps(said))
        else:
            click.echo(printable(f"{store} {one.key} {one.size} {one.modified_at.isoformat()}"))

    services = build(settings.load())
    try:
        with interruptible(), _progress() as progress:
            task = progress.add_task("listing")
            for done in catch_up(services, dry_run=dry_run, unknown=tell):
                progress.update(task, description=f"{done.listed:,} objects, {done.taken:,} found again")
    finally:
        services.close()
    if as_json:
        click.echo(json.dumps({"dryRun": dry_run, **to_camel(asdict(done))}))
    else:
        click.echo(_said(done, dry_run=dry_run), err=listed)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _said(done: CaughtUp, *, dry_run: bool) -> str:
    would = "would be" if dry_run else "were"
    text = (
        f"{done.listed:,} objects; {done.ahead:,} were newer than the database."
        f" {done.taken:,} ({done.taken_bytes / 1e6:,.1f} MB) {would} found again."
        f" {done.unknown:,} ({done.unknown_bytes / 1e6:,.1f} MB) are unknown to it: what came after the backup, until"
        " `millrace storage gc` removes it."
    )
    if done.damaged:
        text += f" {done.damaged:,} do not hold what their names say, and stay as they are."
    if done.archived:
        text += f" {done.archived:,} are in an archive: restore them, and run this again."
    return text
