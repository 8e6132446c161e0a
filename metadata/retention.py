"""Records past their retention go; what still has bytes somewhere is only asked to go."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Column, ColumnElement, Connection, Table, delete, exists, func, select, update

from core import queues, sections
from database.transactions import Database
from metadata.schema import deleted_object, failure, host, job, reader, tombstone, upload, variant, verify_event, worker

BATCH = 1000
"""Rows in one transaction, so that a first prune of an old table holds no locks for long."""


class Retention:
    def __init__(self, database: Database) -> None:
        self._database = database

    def prune(self, retention: sections.Retention) -> int:
        """Returns how many rows went.

        A failed ingest holds bytes on its host's disk: past its retention it gets the wish `discard`, and its host does
        it. One of a lost host has nobody to do it, and its record goes. A failed variant goes with its failure, or
        nobody could ever have it tried again.
        """
        ingests = func.now() - timedelta(days=retention.ingests_days)
        tombstones = func.now() - timedelta(days=retention.tombstones_days)
        failures = func.now() - timedelta(days=retention.failures_days)
        history = func.now() - timedelta(days=retention.history_days)
        self._database.run(_wish_discard, failures)
        nobody = failure.c.kind == "host-lost"
        return (
            self._prune(upload.c.id, upload.c.state == "recorded", upload.c.recorded_at < ingests)
            + self._prune(tombstone.c.asset_id, tombstone.c.deleted_at < tombstones)
            + self._prune(
                variant.c.id,
                variant.c.state == "failed",
                exists().where(failure.c.id == variant.c.id, failure.c.failed_at < failures),
            )
            + self._prune(
                variant.c.id,
                variant.c.state == "failed",
                exists().where(failure.c.source == variant.c.source, failure.c.failed_at < failures),
                ~exists().where(failure.c.id == variant.c.id),
            )
            + self._prune(
                failure.c.id,
                failure.c.subject.in_(["variant", "source"]),
                failure.c.failed_at < failures,
                ~exists().where(variant.c.id == failure.c.id, variant.c.state == "failed"),
                ~exists().where(variant.c.source == failure.c.source, variant.c.state == "failed"),
            )
            + self._prune(
                upload.c.id,
                upload.c.state == "announced",
                exists().where(failure.c.id == upload.c.id, nobody, failure.c.failed_at < failures),
            )
            + self._prune(failure.c.id, nobody, failure.c.failed_at < failures)
            + self._prune(deleted_object.c.generation, deleted_object.c.deleted_at < tombstones)
            + self._prune(verify_event.c.id, verify_event.c.at < history)
            + self._prune(job.c.id, job.c.finished_at < history)
            + self._prune(
                reader.c.queue, reader.c.queue.startswith(queues.ingest_queue("")), reader.c.last_seen < ingests
            )
            + self._prune(worker.c.host, worker.c.last_seen < ingests)
            + self._prune(
                host.c.id,
                host.c.last_seen < ingests,
                ~exists().where(upload.c.host_id == host.c.id, upload.c.state == "announced"),
            )
        )

    def _prune(self, key: Column[object], *conditions: ColumnElement[bool]) -> int:
        pruned = 0
        while True:
            batch = self._database.run(_prune, key, conditions)
            pruned += batch
            if batch < BATCH:
                return pruned


def _prune(connection: Connection, key: Column[object], conditions: tuple[ColumnElement[bool], ...]) -> int:
    table = key.table
    assert isinstance(table, Table)
    old = select(key).where(*conditions).limit(BATCH).with_for_update(skip_locked=True, of=table)
    found = list(connection.scalars(old))
    if not found:
        return 0
    return connection.execute(delete(table).where(key.in_(found), *conditions)).rowcount  # as it is under the lock


def _wish_discard(connection: Connection, before: ColumnElement[datetime]) -> None:
    connection.execute(
        update(failure)
        .where(
            failure.c.subject == "ingest",
            failure.c.kind != "host-lost",
            failure.c.failed_at < before,
            failure.c.wish.is_(None),
        )
        .values(wish="discard")
    )
