"""From a URL to connections: the driver, and the time-outs and settings of every transaction."""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from core.errors import Misconfigured
from database import deadline
from database.session import Session, local

APPLICATION = "millrace"
IDLE_IN_TRANSACTION_SECONDS = 60
"""A client that was stopped in the middle must not hold its locks for ever."""


def parse_url(url: SecretStr | str, name: str = "database_url") -> URL:
    """The URL with the driver we use: SQLAlchemy 2.1 would take another for `postgresql://`.

    Raises:
        Misconfigured: without the URL, which may hold a password.
    """
    plain = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(plain)
    except (ArgumentError, ValueError):
        raise Misconfigured(f"{name} is not a URL") from None
    if parsed.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise Misconfigured(f"{name} must start with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+psycopg2")


def make_engine(url: URL) -> Engine:
    """Makes connections (`database/session.py`) and keeps none: each is closed after use.

    Nothing is said to the server at connect but who we are: a pooler such as PgBouncer takes no more.
    """
    deadline.install()
    return create_engine(
        url,
        poolclass=NullPool,
        connect_args={"application_name": APPLICATION, "connection_factory": Session},
        hide_parameters=True,
        use_native_hstore=False,  # or each process would ask the server for it
    )


def settings_of(statement_seconds: float, **further: str) -> bytes:
    """Return the statements that every transaction begins with."""
    return local(
        {
            "statement_timeout": f"{max(int(statement_seconds * 1000), 1)}",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS * 1000}",
            "timezone": "UTC",
            **further,
        }
    )
