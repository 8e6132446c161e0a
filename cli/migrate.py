"""`millrace migrate`: bring the database to this version's schema."""

from __future__ import annotations

import click

from core import settings
from core.settings import Settings
from metadata import migrate as migrations


@click.command()
def migrate() -> None:
    """Bring the database to this version's schema. Several at once are safe."""
    bring_up_to_date(settings.load())


def bring_up_to_date(configured: Settings) -> None:
    """Migrate, and have this host remember which installation the database is."""
    from pipeline.services import build

    migrations.upgrade(settings.require_url(configured.database_url, "database_url"))
    services = build(configured)
    try:
        services.installation.ask()
    finally:
        services.close()
