"""`millrace storage gc`: removing from the stores what nothing needs any more."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from cli import job_progress
from core import settings
from pipeline.jobs import gc as collection
from pipeline.jobs import registry
from pipeline.replicas.identification import is_ours
from pipeline.services import Services, build


@click.command()
@click.option("--store", "names", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option(
    "--grace-hours",
    default=collection.GRACE_SECONDS / 3600,
    show_default=True,
    type=click.FloatRange(0),
    help="Orphans younger than this stay.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing. Needs no identified store.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
def gc(names: tuple[str, ...], grace_hours: float, dry_run: bool, as_json: bool) -> None:
    """Remove from the stores what nothing needs any more, while everything runs.

    That is what was deleted, and orphans: objects that no row names. They go only from a store that this installation
    filled (`millrace storage identify`): to a database made anew everything in a store looks like one. Objects whose
    names are not Millrace's stay.
    Ctrl-C pauses; the same command goes on, also after this process was killed.
    """
    arguments = {"stores": names, "grace_seconds": grace_hours * 3600}
    services = build(settings.load())
    try:
        if dry_run:
            _print_survey(services, collection.Collection.of(services, arguments), as_json)
            return
        job = job_progress.follow(services, registry.create(services, collection.KIND, arguments))
    finally:
        services.close()
    job_progress.end(job, as_json=as_json)


def _print_survey(services: Services, wanted: collection.Collection, as_json: bool) -> None:
    found, let_go = collection.survey(services, wanted)
    if as_json:
        identified = {name: is_ours(services, name) for name in wanted.stores}
        numbers = {"orphanBytes" if name == "orphan_bytes" else name: count for name, count in asdict(found).items()}
        del numbers["removed"]
        click.echo(json.dumps({"dryRun": True, **numbers, "letGo": let_go, "identified": identified}))
        return
    click.echo(
        f"{found.done:,} objects: {found.orphans:,} orphans ({found.orphan_bytes / 1e6:,.1f} MB) would go, and"
        f" {let_go:,} that were deleted. {found.young:,} younger orphans, {found.ahead:,} newer than the database and"
        f" {found.foreign:,} of others would stay."
    )
