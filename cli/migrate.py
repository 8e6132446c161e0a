"""`millrace migrate`: bring the database to this version's schema."""

from __future__ import annotations

import click

from core import settings
from metadata import migrate as migrations


@click.command()
def migrate() -> None:
    """Bring the database to this version's schema. Several at once are safe."""
    migrations.upgrade(settings.require_url(settings.load().database_url, "database_url"))
