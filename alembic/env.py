"""Runs migrations on the connection that metadata/migrate.py hands over, or, for the `alembic` command, on one to the
database of the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from core import settings
from metadata import migrate
from metadata.schema import metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = settings.require_url(settings.load().database_url, "database_url")
    with migrate.locked(url) as connection:
        run(connection)
