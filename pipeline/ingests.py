"""What became of an upload: asked of this host's disk first, then of PostgreSQL.

An entry moves between the two while somebody asks: it leaves the disk only after its row is there, so whoever found
neither looks once more. The host that accepted an upload knows it without PostgreSQL; for a minute after it was
recorded too, from the trash.
"""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

from core.errors import AskStagingHost, MillraceError, NotFound, StoreFull, Unavailable
from core.model import FailureReason, Ingest, IngestState, Manifest, StagedEntry
from pipeline.services import Services

FIRST_POLL_SECONDS = 0.02
SLOWEST_POLL_SECONDS = 0.25


class IngestFailed(MillraceError):
    """The upload was accepted and could not be stored; `reason` says what it failed of."""

    code = "ingest-failed"

    def __init__(self, reason: FailureReason) -> None:
        super().__init__(reason.detail)
        self.reason = reason


def find(services: Services, upload_id: UUID, *, accepted_at_host: UUID | None) -> Ingest:
    """
    Raises:
        NotFound: nobody knows it.
        AskStagingHost: another host accepted it and has not told PostgreSQL yet.
        Unavailable: PostgreSQL does not answer, and this host alone cannot tell.
    """
    staged = services.staging.look(upload_id)
    if staged is not None:
        return _of_entry(staged)
    try:
        recorded = _recorded(services, upload_id)
    except Unavailable:
        return _without_database(services, upload_id, accepted_at_host)
    if recorded is not None:
        return recorded
    staged = services.staging.look(upload_id)
    if staged is not None:
        return _of_entry(staged)
    recorded = _recorded(services, upload_id)
    if recorded is not None:
        return recorded
    if accepted_at_host not in (None, services.staging.host_id):
        raise AskStagingHost(f"host {accepted_at_host} accepted this upload and has not announced it yet")
    raise NotFound(f"there is no ingest {upload_id}")


def wait(services: Services, upload_id: UUID, seconds: float) -> Ingest | None:
    """Until the upload is recorded; None: not yet, or purged since. Asks the disk, and PostgreSQL only once the entry
    has left it.

    Raises:
        IngestFailed: it went to quarantine meanwhile.
        StoreFull: not yet, and the last attempt found no room in the store. The upload waits for some.
    """
    ends = time.monotonic() + seconds
    pause = FIRST_POLL_SECONDS
    while True:
        found = _settled(services, upload_id)
        if found is not None:
            return None if found.entry is None else found
        left = ends - time.monotonic()
        if left <= 0:
            _require_room(services, upload_id)
            return None
        time.sleep(min(pause, left))
        pause = min(pause * 1.3, SLOWEST_POLL_SECONDS)


def _settled(services: Services, upload_id: UUID) -> Ingest | None:
    staged = services.staging.look(upload_id)
    if staged is not None:
        if staged.quarantined:
            raise IngestFailed(staged.attempts.failure or FailureReason("internal", "no reason was kept"))
        return None
    try:
        recorded = _recorded(services, upload_id)
    except Unavailable:
        return None
    return recorded if recorded is not None and recorded.stored_at is not None else None


def _require_room(services: Services, upload_id: UUID) -> None:
    staged = services.staging.look(upload_id)
    failure = staged.attempts.failure if staged is not None and not staged.quarantined else None
    if failure is not None and failure.kind == StoreFull.code:
        raise StoreFull(failure.detail)


def _recorded(services: Services, upload_id: UUID) -> Ingest | None:
    host_lost = timedelta(seconds=services.settings.work.host_lost_seconds)
    return services.metadata.uploads.find(upload_id, host_lost=host_lost)


def _without_database(services: Services, upload_id: UUID, accepted_at_host: UUID | None) -> Ingest:
    staged = services.staging.look(upload_id)
    if staged is not None:
        return _of_entry(staged)
    done = services.staging.recently_done(upload_id)
    if done is not None:
        return _of_manifest(done, IngestState.STORED, attempts=1)
    if accepted_at_host not in (None, services.staging.host_id):
        raise AskStagingHost(f"host {accepted_at_host} accepted this upload, and PostgreSQL does not answer here")
    raise Unavailable("PostgreSQL does not answer, and this host does not have the upload (any more)")


def _of_entry(entry: StagedEntry) -> Ingest:
    if entry.quarantined:
        state = IngestState.FAILED
    elif entry.attempts.running:
        state = IngestState.STORING
    else:
        state = IngestState.STAGED
    failure = entry.attempts.failure if entry.quarantined else None
    return _of_manifest(entry.manifest, state, attempts=entry.attempts.total, failure=failure)


def _of_manifest(
    manifest: Manifest, state: IngestState, *, attempts: int, failure: FailureReason | None = None
) -> Ingest:
    return Ingest(
        id=manifest.id,
        asset_id=manifest.asset_id,
        state=state,
        attempts=attempts,
        path=manifest.path,
        entry=None,
        accepted_at=manifest.accepted_at,
        failure=failure,
    )
