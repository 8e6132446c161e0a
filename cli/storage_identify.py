"""`millrace storage identify`: saying that a store is this installation's."""

from __future__ import annotations

from uuid import UUID

import click

from cli.sanitize import printable
from core import settings
from pipeline.jobs.arguments import chosen
from pipeline.replicas.identification import identify as put_marker
from pipeline.services import build


@click.command()
@click.argument("name")
@click.option("--take-over", type=click.UUID, metavar="ID", help="It belonged to this installation, which is gone.")
def identify(name: str, take_over: UUID | None) -> None:
    """Say that the store NAME is this installation's, by a marker object in it.

    A new store is marked by itself. This is for one that was restored without its marker, for a new one in the place of
    one that is lost (its objects are then made again from their copies), and for one of an installation that is gone.
    Look first whether its disk is mounted and whether it is the right bucket: what is missing in a store with a marker
    counts as lost.
    """
    services = build(settings.load(), owns_stores=True)
    try:
        chosen(services, [name])
        seen = put_marker(services, name, take_over=take_over)
    finally:
        services.close()
    click.echo(f"{printable(name)} carries the marker of this installation")
    if seen.looked_for:
        click.echo(f"{seen.found} of {seen.looked_for} recorded objects that were looked for are there")
