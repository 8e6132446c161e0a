"""`millrace storage verify`: are the stores what the database says, and what is wrong with them."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cli import job_progress
from cli.sanitize import printable
from core import settings
from pipeline.jobs import registry, verification
from pipeline.jobs.as_json import told
from pipeline.replicas.quarantine import SHOWN, Verdict, verdict
from pipeline.services import build


@click.command()
@click.option("--store", "names", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option("--structure-only", is_flag=True, help="Ask for every object, and read none.")
@click.option("--max-mb-s", type=click.FloatRange(0, min_open=True), metavar="N", help="At most so many MB a second.")
@click.option("--json", "as_json", is_flag=True, help="Print the job and what is wrong as JSON.")
def verify(names: tuple[str, ...], structure_only: bool, max_mb_s: float | None, as_json: bool) -> None:
    """Compare the stores with the database, and mend what differs, while everything runs.

    Every object is asked for and read, the one that was verified longest ago first. What is missing or wrong is made
    anew from a good copy. What has none is in quarantine: shown, and kept as it is. Ctrl-C pauses; the same command
    goes on, also after this process was killed. Exits with 1 unless everything was looked at and is right, or mended.
    """
    arguments = {"stores": names, "structure_only": structure_only, "max_mb_s": max_mb_s}
    services = build(settings.load())
    try:
        job = job_progress.follow(services, registry.create(services, verification.KIND, arguments))
        found = verdict(services, job)
    finally:
        services.close()
    if as_json:
        click.echo(json.dumps(_to_json(found), ensure_ascii=False))
    else:
        job_progress.tell(job, as_json=False)
        _print(found)
    sys.exit(0 if found.good else job_progress.exit_code(job) or 1)


def _to_json(found: Verdict) -> dict[str, Any]:
    quarantined = [
        {
            "sha256": one.blob.sha256.hex(),
            "size": one.blob.size,
            "mediaType": one.blob.media_type,
            "stores": dict(one.states),
            "paths": list(one.paths),
        }
        for one in found.quarantined
    ]
    return {
        **told(found.job),
        "good": found.good,
        "quarantined": quarantined,
        "unknownStores": list(found.unknown_stores),
    }


def _print(found: Verdict) -> None:
    for name in found.unknown_stores:
        click.echo(f"The settings name no store {printable(name)}, and it should hold objects.")
    if found.job.progress.get("other_rules"):
        click.echo("Other rules than this host's are in force: see `millrace doctor`. Nothing was compared with them.")
    for name in found.job.progress.get("unanswered", ()):
        click.echo(f"{printable(name)} did not answer for long: not all of it was looked at.")
    if ahead := found.job.progress.get("ahead"):
        click.echo(
            f"{ahead:,} objects are newer than the database, which seems to come from a backup: run"
            " `millrace storage catch-up`, and verify again."
        )
    if found.quarantined:
        more = " at least" if len(found.quarantined) == SHOWN else ""
        click.echo(f"In quarantine,{more} {len(found.quarantined)}: no good copy is left of")
    for one in found.quarantined:
        where = ", ".join(f"{state} in {store}" for store, state in one.states.items())
        paths = ", ".join(one.paths) or "nothing that lives"
        click.echo(printable(f"  {one.blob.sha256.hex()} ({one.blob.size:,} bytes): {where}; needed by {paths}"))
