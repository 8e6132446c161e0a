"""`millrace staging`: what an operator does with this host's staging directory."""

from __future__ import annotations

import click

from core import settings
from storage.staging import host


@click.group()
def staging() -> None:
    """This host's staging directory."""


@staging.command()
def adopt() -> None:
    """Take over a copied staging directory under a new host id.

    The original must not run any more: both would work on the same uploads.
    """
    click.echo(f"this staging directory belongs to host {host.adopt(settings.load())} now")
