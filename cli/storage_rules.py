"""`millrace storage apply-rules`: putting this host's rules in force, and bringing what is there to where they say."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

import click

from cli import job_progress, survey
from core import settings
from pipeline.jobs import applying, registry
from pipeline.jobs.as_json import to_camel
from pipeline.services import build


@click.command(name="apply-rules")
@click.option("--max-mb-s", type=click.FloatRange(0, min_open=True), metavar="N", help="At most so many MB a second.")
@click.option("--dry-run", is_flag=True, help="Say what would be copied and removed, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the job, or what would change, as JSON.")
def command(max_mb_s: float | None, dry_run: bool, as_json: bool) -> None:
    """Put this host's placement and demotion rules in force, and apply them to what is there.

    Hosts with other rules go on taking uploads, and remove no replica that a rule may ask for, until they have these.
    What lies in too few stores is copied; what lies in too many is left to the collection. Ctrl-C pauses; the same
    command goes on, also after this process was killed. Exits with 1 when something could not be copied.
    """
    services = build(settings.load())
    try:
        if dry_run:
            _print(survey.shown(partial(applying.survey, services)), as_json)
            return
        services.metadata.rules.put_in_force(services.rules)
        job = job_progress.follow(services, registry.create(services, applying.KIND, {"max_mb_s": max_mb_s}))
    finally:
        services.close()
    job_progress.end(job, as_json=as_json)


def _print(found: applying.Survey, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"dryRun": True, **to_camel(asdict(found))}))
        return
    click.echo(
        f"{found.objects:,} objects: {found.copies:,} copies ({found.copied_bytes / 1e6:,.1f} MB) would be made, and of"
        f" {found.surplus:,} a replica would go that no rule names."
    )
