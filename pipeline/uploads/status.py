"""What became of an upload: asked of this host's disk first, then of PostgreSQL.

An entry moves between the two while somebody asks: it leaves the disk only after its row is there, so whoever found
neither looks once more. The host that accepted an upload knows it without PostgreSQL; for a minute after it was
recorded too, from the trash.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from core.errors import AskStagingHost, MillraceError, NotFound, StoreFull, Unavailable
from core.model import FailureReason, Ingest, IngestState, Manifest, StagedEntry
from metadata.uploads.uploads import HOST_LOST
from pipeline.services import Services

FIRST_POLL_SECONDS = 0.02
SLOWEST_POLL_SECONDS = 0.25
TIMED_VERSION = 7
"""Of UUIDs: the first 48 bits are milliseconds since 1970 (RFC 9562 §5.7)."""
LATEST_MILLISECONDS = 1 << 47
"""In the year 6429: times beyond 9999 cannot be told."""


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
        AskStagingHost: another host accepted it and has not told PostgreSQL yet. Once that host is silent for
            `work.host_lost_seconds`, the upload has failed instead, until the host returns.
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
    if accepted_at_host is not None and accepted_at_host != services.staging.host_id:
        return _on_host(services, upload_id, accepted_at_host)
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


def _on_host(services: Services, upload_id: UUID, host_id: UUID) -> Ingest:
    """Return what became of an upload that no row tells of, and that another host is said to have accepted at the
    time in its id."""
    milliseconds = upload_id.int >> 80
    if upload_id.version != TIMED_VERSION or milliseconds >= LATEST_MILLISECONDS:
        raise NotFound(f"no upload has the id {upload_id}")
    accepted_at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    host_lost = timedelta(seconds=services.settings.work.host_lost_seconds)
    fate = services.metadata.uploads.fate_on(host_id, accepted_at, host_lost=host_lost)
    if fate == "never was":
        raise NotFound(f"host {host_id} lives, has told of all uploads that it holds, and {upload_id} is none of them")
    if fate == "waits":
        raise AskStagingHost(f"host {host_id} is said to have accepted this upload and has not announced it yet")
    return Ingest(
        id=upload_id,
        asset_id=None,
        state=IngestState.FAILED,
        attempts=0,
        path="",
        entry=None,
        accepted_at=accepted_at,
        failure=HOST_LOST,
    )


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
