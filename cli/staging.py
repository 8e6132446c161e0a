"""`millrace staging`: what an operator does with this host's staging directory."""

from __future__ import annotations

from datetime import timedelta

import click

from core import settings
from storage.staging import host
from storage.staging.staging import Staging


@click.group()
def staging() -> None:
    """This host's staging directory."""


@staging.command()
def adopt() -> None:
    """Take over a copied staging directory under a new host id.

    The original must not run any more: both would work on the same uploads.
    """
    click.echo(f"this staging directory belongs to host {host.adopt(settings.load())} now")


@staging.command("empty-quarantine")
@click.option("--older-than", type=click.FloatRange(min=0), default=0, metavar="DAYS", help="Only uploads that old.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def empty_quarantine(older_than: float, yes: bool) -> None:
    """Discard the uploads that failed on this host, with their bytes. There is no way back.

    Needs nothing but the disk. The host's sweep frees the space within a minute, at once where there is too little, and
    takes them off the list of failures.
    """
    here = Staging.open(settings.load())
    count, size = here.quarantine_depth()
    if count and not yes:
        click.confirm(f"Discard up to {count} failed uploads ({size:,} bytes)?", abort=True)
    count, size = here.empty_quarantine(timedelta(days=older_than))
    click.echo(f"discarded {count} failed uploads ({size:,} bytes)")
