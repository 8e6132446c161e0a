"""`millrace migrate`: bring the database to this version's schema."""

from __future__ import annotations

from collections.abc import Callable

import click

from core import settings
from core.settings import Settings
from metadata import migrate as migrations


@click.command()
def migrate() -> None:
    """Bring the database to this version's schema. Several at once are safe.

    Stores that were filled before stores had markers get theirs, where what the database names is found in them.
    """
    bring_up_to_date(settings.load(), click.echo)


def bring_up_to_date(configured: Settings, say: Callable[[str], None]) -> None:
    """Migrate, have this host remember which installation the database is, and identify stores that have no marker."""
    from pipeline.replicas.identification import identify_filled
    from pipeline.services import build

    migrations.upgrade(settings.require_url(configured.database_url, "database_url"))
    services = build(configured, owns_stores=True)
    try:
        services.installation.ask()
        identify_filled(services, say)
    finally:
        services.close()
