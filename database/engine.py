"""From a URL to connections: the driver, the time-outs and settings of every session, the pool."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import SecretStr
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, QueuePool

from core.errors import Misconfigured
from database import deadline

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


def make_engine(
    url: URL,
    statement_seconds: float,
    *,
    pool_size: int | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Engine:
    """`pool_size=None`: every connection is closed after use."""
    deadline.install()
    settings = {
        "statement_timeout": f"{max(int(statement_seconds * 1000), 1)}",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS * 1000}",
        "timezone": "UTC",
        **options,
    }
    given = url.query.get("options", "")
    words = [given if isinstance(given, str) else " ".join(given)]
    words += [f"-c {name}={value}" for name, value in settings.items()]
    arguments = {"application_name": APPLICATION, "options": " ".join(words).strip()}
    url = url.difference_update_query(["options"])
    if pool_size is None:
        return create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    return create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_use_lifo=True,
        connect_args=arguments,
        hide_parameters=True,
    )
