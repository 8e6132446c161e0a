"""What PostgreSQL says goes to the log. What reaches a client is the SQLSTATE, whatever went wrong."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import MillraceError
from core.model import FailureReason
from database.errors import translated
from database.transactions import Database
from storage.postgres.errors import meaning

SECRET = "the-servers-own-words"
STATES = [
    "08006", "22003", "23503", "23505", "25006", "28000", "40001", "42501", "42601", "42703", "42704", "42P01",
    "3F000", "53100", "53300", "54000", "55P03", "57014", "57P01", "58030", "P0001", "XX000", "XX001", "XX002",
]  # fmt: skip


def said(raised: BaseException) -> str:
    """All of it that could be shown."""
    detail = raised.detail if isinstance(raised, MillraceError) else str(raised)
    return f"{detail} {raised!r} {FailureReason.unforeseen(RuntimeError(detail)).detail}"


@pytest.mark.parametrize("translate", [translated, meaning])
def test_no_error_repeats_what_the_server_said(
    translate: Callable[[SQLAlchemyError], Exception], database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(database_url, translate=translate)
    for state in STATES:
        caplog.clear()
        raising = f"DO $$ BEGIN RAISE EXCEPTION '{SECRET}' USING ERRCODE = '{state}'; END $$"
        with pytest.raises((MillraceError, RuntimeError)) as caught:
            database.read(lambda connection, raising=raising: connection.execute(text(raising)))
        assert SECRET not in said(caught.value), state
        if translate is translated:
            assert state in said(caught.value)
            assert SECRET in caplog.text, f"{state}: the log does not have it"
    database.close()


@pytest.mark.parametrize(
    ("change", "word"),
    [({"path": "/no-such-database"}, "no-such-database"), ({"netloc": "no-such-role@"}, "no-such-role")],
)
def test_no_error_repeats_why_a_connection_was_refused(
    change: dict[str, str], word: str, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(urlunsplit(urlsplit(database_url)._replace(**change)))
    with pytest.raises(MillraceError) as caught:
        database.ping()
    assert word not in said(caught.value)
    assert word in caplog.text
    database.close()


def test_an_error_that_nobody_foresaw_shows_its_type_only() -> None:
    reason = FailureReason.unforeseen(OSError(2, SECRET, "/srv/private"))
    assert reason.kind == "internal"
    assert "FileNotFoundError" in reason.detail
    assert SECRET not in reason.detail
    assert "/srv/private" not in reason.detail
