"""The tables of a store, made and brought up to date by the store itself.

Their database may be another than the metadata's, so Alembic does not own them. `blob_version` has one row: how many of
`STEPS` were done. Guarantees: of any number of processes one does each step, each wholly or not at all.

An object is a row of `blob_object` with its bytes in `blob_chunk`, cut at `chunk_size`, or in the large object that it
names. A pending row names all that its writer has written so far. Ids are never used again, so what is read by id is
never another object's.
"""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema

from core.errors import Forbidden, NoStore, StoreUnavailable
from database.errors import sqlstate
from database.transactions import Database

_LOCK = 0x6D696C6C
"""The first half of an advisory lock's key; the second is the schema's."""

_OBJECT = """
CREATE TABLE blob_object (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_blob_object PRIMARY KEY,
    key text COLLATE "C" NOT NULL,
    size bigint NOT NULL CONSTRAINT ck_blob_object_size CHECK (size >= 0),
    sha256 bytea NOT NULL CONSTRAINT ck_blob_object_sha256 CHECK (octet_length(sha256) = 32),
    media_type text NOT NULL,
    chunk_size integer NOT NULL CONSTRAINT ck_blob_object_chunk_size CHECK (chunk_size > 0),
    large_object oid,
    state text NOT NULL CONSTRAINT ck_blob_object_state CHECK (state IN ('pending', 'stored')),
    written bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    touched_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_blob_object_written CHECK (written BETWEEN 0 AND size AND (state = 'pending' OR written = size))
)
"""
_CHUNK = """
CREATE TABLE blob_chunk (
    object_id bigint NOT NULL CONSTRAINT fk_blob_chunk_object REFERENCES blob_object ON DELETE CASCADE,
    number integer NOT NULL CONSTRAINT ck_blob_chunk_number CHECK (number >= 0),
    data bytea NOT NULL CONSTRAINT ck_blob_chunk_data CHECK (octet_length(data) > 0),
    CONSTRAINT pk_blob_chunk PRIMARY KEY (object_id, number)
)
"""
STEPS = (
    (
        _OBJECT,
        "CREATE UNIQUE INDEX uq_blob_object_key ON blob_object (key) WHERE state = 'stored'",
        "CREATE INDEX ix_blob_object_pending ON blob_object (id) WHERE state = 'pending'",
        _CHUNK,
        # Pictures are compressed already; and of what is stored plainly a range is read without the rest.
        "ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL",
    ),
)


def establish(database: Database, schema: str) -> None:
    """Make what is missing.

    Raises:
        Forbidden: the role may not do that; says what to run.
        StoreUnavailable: no answer, or a newer Millrace made the tables.
    """
    _bring_up_to_date(database, schema, database.read(_version, schema))


def require(database: Database, schema: str) -> None:
    """Look that the tables are there, and bring them up to date.

    Raises:
        NoStore: there are none.
        Forbidden, StoreUnavailable: as `establish`.
    """
    found = database.read(_version, schema)
    if found == 0:
        raise NoStore(f"its database has no tables of a store in the schema {schema}: is it the right database?")
    _bring_up_to_date(database, schema, found)


def _bring_up_to_date(database: Database, schema: str, found: int) -> None:
    if found > len(STEPS):
        raise StoreUnavailable(f"the schema {schema} is of a newer Millrace: use that one")
    if found < len(STEPS):
        database.run(_upgrade, schema)


def _version(connection: Connection, schema: str) -> int:
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{schema}.blob_version"}) is None:
        return 0
    version: int = connection.execute(text("SELECT version FROM blob_version")).scalar_one()
    return version


def _upgrade(connection: Connection, schema: str) -> None:
    lock = text("SELECT pg_advisory_xact_lock(:lock, hashtext(:schema))")
    connection.execute(lock, {"lock": _LOCK, "schema": schema})
    _ensure_schema(connection, schema)
    found = _version(connection, schema)
    if found == 0:
        connection.execute(text("CREATE TABLE blob_version (version integer NOT NULL)"))
        connection.execute(text("INSERT INTO blob_version VALUES (0)"))
    for step in STEPS[found:]:
        for statement in step:
            connection.execute(text(statement))
    connection.execute(text("UPDATE blob_version SET version = :version"), {"version": len(STEPS)})


def _ensure_schema(connection: Connection, schema: str) -> None:
    if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": schema}) is not None:
        return
    role, database = connection.execute(text("SELECT current_user, current_database()")).one()
    try:
        with connection.begin_nested():
            connection.execute(CreateSchema(schema))
    except DBAPIError as error:
        if sqlstate(error) != "42501":
            raise
        raise Forbidden(
            f"the role {role} may not make the schema {schema} in the database {database}: run"
            f' `CREATE SCHEMA {schema} AUTHORIZATION "{role}";` there as its owner'
        ) from None
