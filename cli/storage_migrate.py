"""`millrace storage migrate`, and the jobs and states of stores that come with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cli import job_progress
from cli.sanitize import printable
from core import settings
from core.errors import BadRequest
from core.model import Job, StoreState
from pipeline.jobs import migration, registry
from pipeline.jobs.as_json import told
from pipeline.jobs.runner import Wish
from pipeline.services import Services, build


@contextmanager
def _services() -> Iterator[Services]:
    services = build(settings.load())
    try:
        yield services
    finally:
        services.close()


@click.command()
@click.option("--from", "source", required=True, metavar="NAME", help="The store to move away from.")
@click.option("--to", "target", required=True, metavar="NAME", help="The store to move to.")
@click.option("--max-mb-s", type=click.FloatRange(0, min_open=True), metavar="N", help="At most so many MB a second.")
@click.option("--delete-source", is_flag=True, help="Remove from the source what was verified at the target.")
@click.option("--dry-run", is_flag=True, help="Say what there is to move, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def migrate(
    source: str, target: str, max_mb_s: float | None, delete_source: bool, dry_run: bool, as_json: bool
) -> None:
    """Move what one store holds to another, while everything runs.

    New uploads go to the target from the start. Ctrl-C pauses; the same command goes on, also after this process was
    killed. Exits with 1 when something could not be moved.
    """
    arguments = {"source": source, "target": target, "max_mb_s": max_mb_s, "delete_source": delete_source}
    with _services() as services:
        if dry_run:
            _print_plan(migration.plan(services, migration.Move.of(services, arguments)), source, target, as_json)
            return
        job = job_progress.follow(services, registry.create(services, migration.KIND, arguments))
    job_progress.end(job, as_json=as_json)


def _print_plan(plan: migration.Progress, source: str, target: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"dryRun": True, "objects": plan.total, "bytes": plan.total_bytes}))
    else:
        click.echo(f"{plan.total:,} objects, {plan.total_bytes / 1e6:,.1f} MB to move from {source} to {target}")


@click.group(name="jobs", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.pass_context
def jobs(ctx: click.Context, as_json: bool) -> None:
    """Show jobs, newest first; pause, resume or cancel one."""
    if ctx.invoked_subcommand is not None:
        return
    with _services() as services:
        found = services.metadata.jobs.newest(registry.MAX_PAGE)
    if as_json:
        click.echo(json.dumps([told(job) for job in found], ensure_ascii=False))
    else:
        _print(found)


@jobs.command()
@click.argument("job_id", metavar="ID", type=click.UUID)
def pause(job_id: UUID) -> None:
    """Have a job stop where it is, until it is resumed."""
    _wish(job_id, "pause")


@jobs.command()
@click.argument("job_id", metavar="ID", type=click.UUID)
def resume(job_id: UUID) -> None:
    """Have the workers go on with a paused job."""
    _wish(job_id, "resume")


@jobs.command()
@click.argument("job_id", metavar="ID", type=click.UUID)
def cancel(job_id: UUID) -> None:
    """End a job. What it has done stays; a store that it drained goes on draining (see `storage state`)."""
    _wish(job_id, "cancel")


def _wish(job_id: UUID, wish: Wish) -> None:
    with _services() as services:
        job = registry.wish(services, job_id, wish)
    click.echo(f"{job.id} is {job.state.value}" + (f", and is told to {job.wish}" if job.wish else ""))
    sys.exit(1 if job.state.ended and not (wish == "cancel" and job.state.value == "cancelled") else 0)


@click.command()
@click.argument("name")
@click.argument("wanted", metavar="STATE", type=click.Choice(["active", "draining", "read-only"]))
@click.option("--successor", metavar="NAME", help="Who takes what it would have taken. Else: default_store.")
def state(name: str, wanted: str, successor: str | None) -> None:
    """Say whether a store takes new objects; goes before its state in the settings. Takes effect at once."""
    with _services() as services:
        for store in filter(None, (name, successor)):
            if store not in services.stores:
                raise BadRequest(f"no store is called {store!r} (there is: {', '.join(services.stores)})")
        if wanted != "active" and successor in (None, name) and name == services.settings.default_store:
            raise BadRequest(f"{name!r} is the default store: say with --successor who takes its place")
        services.metadata.stores.set_state(StoreState(name, wanted, successor if wanted != "active" else None))
    click.echo(f"{name} is {wanted}")


def _print(found: list[Job]) -> None:
    console = Console()
    if not found:
        console.print("There are no jobs.")
        return
    table = Table(Column("id", no_wrap=True, min_width=36), "job", "state", "done", "since", "trouble")
    for job in found:
        names = " ".join(str(job.arguments[name]) for name in ("source", "target") if name in job.arguments)
        state = f"{job.state.value}, to {job.wish}" if job.wish else job.state.value
        total = job.progress.get("total")
        done = f"{job.progress.get('done', 0):,}" + (f" of {total:,}" if total else "")
        row = (str(job.id), f"{job.kind} {names}", state, done, f"{job.created_at:%Y-%m-%d %H:%M:%S}")
        table.add_row(*(escape(printable(text)) for text in (*row, job.error or "")))
    console.print(table)
