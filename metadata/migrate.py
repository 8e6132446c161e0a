"""Brings a database to the schema of this version.

Guarantees: any number of processes may start it at once, one migrates and the others find nothing to do; a migration
happens in one transaction, wholly or not at all; a database without ltree ends in one line that says what to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.errors import Misconfigured
from database.deadline import deadline
from database.engine import make_engine, parse_url, settings_of
from database.errors import translated
from database.session import session_of

SCRIPTS = Path(__file__).parent.parent / "alembic"
SECONDS = 600
_LOCK = (0x6D696C6C, 0x72616365)  # "mill", "race": a key space apart from that of asset ids


def upgrade(url: SecretStr | str, revision: str = "head") -> None:
    """
    Raises:
        Misconfigured: the database has no ltree and may not make it, or was migrated by a newer version.
        DatabaseUnavailable: no answer.
    """
    with locked(url) as connection:
        _refuse_newer(connection)
        _ensure_ltree(connection)
        command.upgrade(_config(connection), revision)


def downgrade(url: SecretStr | str, revision: str = "base") -> None:
    with locked(url) as connection:
        command.downgrade(_config(connection), revision)


def current(url: SecretStr | str) -> str | None:
    """The revision the database has; None: it was never migrated."""
    with locked(url) as connection:
        return _current(connection)


def head() -> str | None:
    """The revision this version of Millrace needs."""
    return ScriptDirectory(str(SCRIPTS)).get_current_head()


@contextmanager
def locked(url: SecretStr | str) -> Iterator[Connection]:
    """One transaction in which nobody else migrates."""
    engine = make_engine(parse_url(url))
    try:
        with deadline(SECONDS), engine.begin() as connection:
            session_of(connection).begin(settings_of(SECONDS), whole=True)
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:high, :low)"), dict(zip(("high", "low"), _LOCK, strict=True))
            )
            yield connection
    except SQLAlchemyError as error:
        raise translated(error) from None
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    """Hands the connection over instead of a URL: Alembic's settings would take a `%` in it for their own."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection) -> None:
    found = _current(connection)
    known = {script.revision for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()}
    if found is not None and found not in known:
        raise Misconfigured(f"the database has the schema {found} of a newer Millrace: use that one")


def _ensure_ltree(connection: Connection) -> None:
    if connection.scalar(text("SELECT true FROM pg_extension WHERE extname = 'ltree'")):
        return
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS ltree"))
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        name = connection.engine.url.database
        raise Misconfigured(
            f"the database {name!r} has no ltree extension: run `CREATE EXTENSION ltree;` in it as a superuser"
            " (Debian and Ubuntu have it in the package postgresql, others in postgresql-contrib)"
        ) from None
