"""Whether a PostgreSQL is one that the metadata can rest on. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from core import clock
from core.findings import Check, Finding, note, ok, problem
from core.timings import measure
from database.transactions import Database
from metadata import migrate
from metadata.blobs import lost_originals
from metadata.schema import metadata

OLDEST = 150_000
"""`server_version_num` of PostgreSQL 15."""
SKEW_NOTED_SECONDS = 5.0
SKEW_PROBLEM_SECONDS = 60.0
SLOW_MS = 10
_LIVING = """
WITH swept AS (
    SELECT id::text AS name, coalesce(connections, 0) AS most FROM host WHERE last_seen > now() - interval '10 minutes'
), working AS (
    SELECT host AS name, sum(connections) AS most FROM worker
    WHERE last_seen > now() - interval '10 minutes' AND host NOT IN (SELECT name FROM swept) GROUP BY host
)
SELECT count(*)::int, coalesce(sum(most), 0)::int FROM (TABLE swept UNION ALL TABLE working) AS living"""
"""Hosts, and how many connections they may open. One that has a sweep says it for all of its processes."""
_WRITES = "SELECT, INSERT, UPDATE, DELETE"


class PostgresProbe:
    """Every method may end with DatabaseUnavailable."""

    def __init__(self, database: Database, *, connections: int, durable: bool) -> None:
        """`connections`: how many this host's processes may open. `durable`: what was accepted must survive a crash."""
        self._database = database
        self._connections = connections
        self._durable = durable

    def checks(self) -> Sequence[Check]:
        return (
            Check("version", self._version, needed=True),
            Check("primary", self._primary),
            Check("durability", self._durability),
            Check("ltree", self._ltree),
            Check("schema", self._schema, needed=True),
            Check("rights", self._rights),
            Check("connections", self._room),
            Check("clock", self._clock),
            Check("latency", self._latency),
            Check("hosts", self._hosts),
            Check("quarantine", self._quarantine),
        )

    def _version(self) -> Finding:
        number, name = self._row("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
        if number < OLDEST:
            return problem("version", f"PostgreSQL {name}", "use PostgreSQL 15 or later")
        return ok("version", f"PostgreSQL {name}")

    def _primary(self) -> Finding:
        recovering, read_only = self._row(
            "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool"
        )
        if recovering:
            return problem("primary", "this server is a standby and takes no writes", "point database_url elsewhere")
        if read_only:
            return problem("primary", "transactions are read-only by default", "set default_transaction_read_only off")
        return ok("primary", "takes writes")

    def _durability(self) -> Finding:
        names = ("fsync", "synchronous_commit", "full_page_writes")
        values = self._row(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('full_page_writes')"
        )
        off = [name for name, value in zip(names, values, strict=True) if value == "off"]
        if not off:
            return ok("durability", "what is committed is on disk")
        said = f"{' and '.join(off)} off: what is committed may be lost with the machine's power"
        if not self._durable:
            return note("durability", f"{said}; staging promises no more")
        return problem("durability", said, f"set {' and '.join(off)} on: staged copies are dropped after a commit")

    def _ltree(self) -> Finding:
        installed, available = self._row(
            "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'ltree'),"
            " (SELECT default_version FROM pg_available_extensions WHERE name = 'ltree')"
        )
        if installed:
            return ok("ltree", f"version {installed}")
        if available:
            return problem("ltree", "is not in this database", "run `millrace migrate`, or CREATE EXTENSION ltree")
        return problem(
            "ltree",
            "is not on this server",
            "install its contrib modules (postgresql-contrib), then `millrace migrate`",
        )

    def _schema(self) -> Finding:
        (known,) = self._row("SELECT to_regclass('alembic_version') IS NOT NULL")
        found = self._row("SELECT max(version_num) FROM alembic_version")[0] if known else None
        wanted = migrate.head()
        if found == wanted:
            return ok("schema", f"revision {found}")
        if found is None:
            return problem("schema", "the database was never migrated", "run `millrace migrate`")
        return problem(
            "schema",
            f"the database has revision {found} and this version wants {wanted}",
            "run `millrace migrate` of the newer of the two",
        )

    def _rights(self) -> Finding:
        names = sorted(metadata.tables)
        query = text(
            "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE NOT has_table_privilege(name, :rights)"
        )

        def missing(connection: Connection) -> list[str]:
            # One right at a time: a list of them asks for any.
            found = {
                str(name)
                for right in _WRITES.split(", ")
                for name in connection.scalars(query, {"names": names, "rights": right})
            }
            return sorted(found)

        lacking = self._database.read(missing)
        if not lacking:
            return ok("rights", "all tables can be read and written")
        return problem(
            "rights", f"not every right on {', '.join(lacking)}", f"GRANT {_WRITES} ON ALL TABLES … to this role"
        )

    def _room(self) -> Finding:
        """Hosts say with their heartbeat what they may open; of one that has no sweep, each worker does."""
        limit, reserved, used = self._row(
            "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,"
            " (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')"
        )
        hosts, theirs = self._row(_LIVING)
        room, wanted = limit - reserved, max(theirs, self._connections)
        said = f"{used} of {room} in use; the processes of {max(hosts, 1)} host(s) open up to {wanted}"
        figures = {"used": used, "room": room, "wanted": wanted, "this_host": self._connections}
        if wanted <= room:
            return ok("connections", said, **figures)
        return problem(
            "connections",
            f"{said}: under load they wait for each other",
            f"set max_connections of PostgreSQL to {wanted + reserved} or more, lower web.pool or the concurrencies, or"
            " put PgBouncer in between, in transaction mode",
            **figures,
        )

    def _clock(self) -> Finding:
        before = clock.now()
        (theirs,) = self._row("SELECT clock_timestamp()")
        middle = before + (clock.now() - before) / 2
        skew = (theirs - middle).total_seconds()
        if abs(skew) > SKEW_PROBLEM_SECONDS:
            return problem("clock", f"differs from this host's by {skew:+.1f} s", "run NTP on both", skew_s=skew)
        if abs(skew) > SKEW_NOTED_SECONDS:
            return note("clock", f"differs from this host's by {skew:+.1f} s", "run NTP on both", skew_s=skew)
        return ok("clock", "agrees with this host's", skew_s=skew)

    def _latency(self) -> Finding:
        timings = measure(lambda _: self._row("SELECT 1"), rounds=50, seconds=2)
        said = f"p50 {timings.p50_ms:.2f} ms, p99 {timings.p99_ms:.2f} ms"
        figures = {"p50_ms": timings.p50_ms, "p99_ms": timings.p99_ms}
        if timings.p50_ms > SLOW_MS:
            return note("latency", said, "put PostgreSQL nearer: an upload takes six round trips", **figures)
        return ok("latency", said, **figures)

    def _hosts(self) -> Finding:
        """Hosts whose heartbeat is younger than ten minutes."""
        count, _ = self._row(_LIVING)
        return ok("hosts", f"{count} with a heartbeat in the last ten minutes", hosts=count)

    def _quarantine(self) -> Finding:
        blobs, assets = self._database.read(lost_originals.count)
        if not blobs:
            return ok("quarantine", "a good copy is left of everything", blobs=0, assets=0)
        return problem(
            "quarantine",
            f"no good copy is left of {blobs:,} objects, among them the originals of {assets:,} assets",
            "see `millrace failures` for these assets, and let `millrace storage verify` look for copies of everything",
            blobs=blobs,
            assets=assets,
        )

    def _row(self, statement: str) -> Sequence[Any]:
        return self._database.read(lambda connection: connection.execute(text(statement)).one())
