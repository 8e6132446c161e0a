"""Jobs: long work that is leased, goes on from its cursor, and is paused or cancelled by a wish on its row.

Every write of a holder carries its fence, so one that was followed by another changes nothing when it wakes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from core.errors import Superseded
from core.model import Job, JobState
from database.transactions import Database
from metadata import rows
from metadata.schema import job

UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


class Jobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, kind: str, arguments: Mapping[str, Any]) -> Job:
        """The unfinished job of this kind with these arguments: a new one, unless there is one."""
        return self._database.run(_create, kind, arguments)

    def find(self, job_id: UUID) -> Job | None:
        return self._database.read(_find, job_id)

    def newest(self, limit: int) -> list[Job]:
        query = select(job).order_by(job.c.created_at.desc(), job.c.id.desc()).limit(limit)
        return self._database.read(lambda connection: [rows.to_job(row) for row in connection.execute(query)])

    def unfinished(self, kind: str) -> list[Job]:
        query = select(job).where(job.c.kind == kind, job.c.state.in_(UNFINISHED)).order_by(job.c.created_at)
        return self._database.read(lambda connection: [rows.to_job(row) for row in connection.execute(query)])

    def rested(self, kind: str, seconds: float) -> bool:
        """No job of this kind is unfinished, and none ended in the last `seconds`."""
        return self._database.read(_rested, kind, seconds)

    def take(self, lease: timedelta, job_id: UUID | None = None) -> Job | None:
        """A job that nobody works on, this one or the one that waits longest. None: there is none."""
        return self._database.run(_take, lease, job_id)

    def renew(self, held: Job, lease: timedelta) -> bool:
        """False: it is not ours any more."""
        return self._database.run(_renew, held, lease)

    def advance(self, held: Job, cursor: Mapping[str, Any], progress: Mapping[str, Any], lease: timedelta) -> Job:
        """
        Raises:
            Superseded: it is not ours any more.
        """
        return self._database.run(_advance, held, cursor, progress, lease)

    def settle(self, held: Job, state: JobState, error: str | None = None) -> Job:
        """It ended, or is paused.

        Raises:
            Superseded: it is not ours any more.
        """
        return self._database.run(_settle, held, state, error)

    def put_back(self, held: Job, delay: timedelta) -> Job:
        """Behind all that wait for their turn, or, where somebody wishes it, paused or cancelled. Due after `delay`.

        Raises:
            Superseded: it is not ours any more.
        """
        return self._database.run(_put_back, held, delay)

    def give_back(self, held: Job, why: str, delay: timedelta) -> None:
        """A dependency is away: due again after `delay`."""
        self._database.run(_give_back, held, why, delay)

    def wish(self, job_id: UUID, wish: Literal["pause", "cancel", "resume"]) -> Job | None:
        """Whoever works on it comes to that; where nobody does it happens at once. A job that ended stays as it is.
        None: there is no such job."""
        return self._database.run(_wish, job_id, wish)


def _create(connection: Connection, kind: str, arguments: Mapping[str, Any]) -> Job:
    subject = json.dumps(arguments, sort_keys=True)
    while True:
        made = connection.execute(
            insert(job)
            .values(
                id=uuid7(),
                kind=kind,
                arguments=dict(arguments),
                subject=subject,
                state=JobState.QUEUED,
                cursor={},
                progress={},
                fence=0,
            )
            .on_conflict_do_nothing()
            .returning(job)
        ).one_or_none()
        unfinished = select(job).where(job.c.kind == kind, job.c.subject == subject, job.c.state.in_(UNFINISHED))
        found = made or connection.execute(unfinished).one_or_none()
        if found is not None:  # else it ended in between
            return rows.to_job(found)


def _rested(connection: Connection, kind: str, seconds: float) -> bool:
    lately = job.c.finished_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    # Each has its index.
    busy = [exists().where(job.c.kind == kind, one) for one in (job.c.state.in_(UNFINISHED), lately)]
    return not connection.scalar(select(or_(*busy)))


def _find(connection: Connection, job_id: UUID) -> Job | None:
    row = connection.execute(select(job).where(job.c.id == job_id)).one_or_none()
    return None if row is None else rows.to_job(row)


def _free() -> ColumnElement[bool]:
    nobody = or_(job.c.lease_until.is_(None), job.c.lease_until < func.now())
    return and_(job.c.state.in_([JobState.QUEUED, JobState.RUNNING]), nobody)


def _take(connection: Connection, lease: timedelta, job_id: UUID | None) -> Job | None:
    waits_since = func.coalesce(job.c.lease_until, job.c.created_at)
    free = select(job.c.id).where(_free()).order_by(waits_since).limit(1).with_for_update(skip_locked=True)
    if job_id is not None:
        free = free.where(job.c.id == job_id)
    row = connection.execute(
        update(job)
        .where(job.c.id == free.scalar_subquery())
        .values(
            state=JobState.RUNNING,
            fence=job.c.fence + 1,
            lease_until=func.now() + lease,
            started_at=func.coalesce(job.c.started_at, func.now()),
            error=None,
        )
        .returning(job)
    ).one_or_none()
    return None if row is None else rows.to_job(row)


def _ours(held: Job) -> ColumnElement[bool]:
    return and_(job.c.id == held.id, job.c.fence == held.fence, job.c.state == JobState.RUNNING)


def _renew(connection: Connection, held: Job, lease: timedelta) -> bool:
    renewed = update(job).where(_ours(held)).values(lease_until=func.clock_timestamp() + lease)
    return connection.execute(renewed).rowcount == 1


def _advance(
    connection: Connection, held: Job, cursor: Mapping[str, Any], progress: Mapping[str, Any], lease: timedelta
) -> Job:
    values = {"cursor": dict(cursor), "progress": dict(progress), "lease_until": func.now() + lease}
    return _written(connection, held, values)


def _settle(connection: Connection, held: Job, state: JobState, error: str | None) -> Job:
    ended = func.now() if state.ended else None
    values = {"state": state, "error": error, "finished_at": ended, "wish": None, "lease_until": None}
    return _written(connection, held, values)


def _put_back(connection: Connection, held: Job, delay: timedelta) -> Job:
    return _written(connection, held, _waiting(delay))


def _give_back(connection: Connection, held: Job, why: str, delay: timedelta) -> None:
    connection.execute(update(job).where(_ours(held)).values({**_waiting(delay), "error": why}))


def _waiting(delay: timedelta) -> dict[str, Any]:
    """Whoever held it goes, so a wish that came meanwhile is done at once."""
    state = case((job.c.wish == "pause", "paused"), (job.c.wish == "cancel", "cancelled"), else_="queued")
    ended = case((job.c.wish == "cancel", func.now()))
    return {"state": state, "finished_at": ended, "wish": None, "lease_until": func.now() + delay}


def _written(connection: Connection, held: Job, values: Mapping[str, Any]) -> Job:
    row = connection.execute(update(job).where(_ours(held)).values(values).returning(job)).one_or_none()
    if row is None:
        raise Superseded(f"the job {held.id} is in other hands")
    return rows.to_job(row)


def _wish(connection: Connection, job_id: UUID, wish: Literal["pause", "cancel", "resume"]) -> Job | None:
    nobody = or_(_free(), job.c.state.in_([JobState.QUEUED, JobState.PAUSED]))
    found = connection.execute(select(job, nobody.label("nobody")).where(job.c.id == job_id).with_for_update())
    row = found.one_or_none()
    if row is None or JobState(row.state).ended:
        return None if row is None else rows.to_job(row)
    values: dict[str, Any]
    if wish == "resume":
        values = {"wish": None}
        if row.state == JobState.PAUSED:
            values |= {"state": JobState.QUEUED, "lease_until": None}
    elif row.nobody:
        state = JobState.PAUSED if wish == "pause" else JobState.CANCELLED
        values = {"wish": None, "state": state, "finished_at": func.now() if state.ended else None}
    else:
        values = {"wish": wish}
    return rows.to_job(connection.execute(update(job).where(job.c.id == job_id).values(values).returning(job)).one())
