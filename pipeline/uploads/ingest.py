"""One staged entry becomes a stored and recorded asset.

Order: bytes into the store, then the rows that name them, then the staged copy goes. A crash anywhere leaves at worst
an object that nothing names yet; the entry is still there and the next run goes the same way. Whoever runs this twice
for one entry, in whatever interleaving, gets one asset: the replica's generation and the asset id decide in PostgreSQL.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from functools import partial
from uuid import UUID

from core.errors import Forbidden, IdempotencyConflict, MillraceError, StoreUnavailable, Superseded, Unavailable
from core.failpoints import failpoint
from core.model import BlobFacts, FailureReason, LeasedVariant, Manifest, Recorded, Replica
from imaging.probe import count
from pipeline.backoff import backoff
from pipeline.isolation import parent
from pipeline.isolation.limit import limit
from pipeline.isolation.watchdog import time_limit
from pipeline.leaving import given_back
from pipeline.replicas.put_reserved import place, remember
from pipeline.services import Services
from pipeline.stores.failover import require_answers
from pipeline.variants import derive
from storage.staging.claim import Claim

log = logging.getLogger(__name__)

RESTARTS = 5
"""How often a reservation may be lost within one run before the entry waits."""


class Outcome(Enum):
    GONE = "gone"  # not here any more, or somebody else is at it
    STORED = "stored"
    WAITING = "waiting"  # a dependency is away, for others too; due again later
    AGAIN = "again"  # something about this one went wrong, or its store is away; due again later
    FAILED = "failed"  # in quarantine, with its reason


def ingest(services: Services, upload_id: UUID) -> Outcome:
    """Work on one staged entry if nobody else does. Never raises for what is wrong with an upload or a dependency."""
    try:
        claim = services.staging.claim(upload_id)
    except Unavailable:
        log.exception("staging's disk refuses a claim", extra={"upload_id": str(upload_id)})
        return Outcome.WAITING
    if claim is None:
        return Outcome.GONE
    with claim:
        if claim.attempts.unfinished >= services.settings.work.max_unfinished:
            return _ingest_alone(services, claim)
        return run(services, claim)


def run(services: Services, claim: Claim, *, last: bool = False) -> Outcome:
    """The attempt itself: counted before the work, settled in an orderly way whatever happens short of a crash. After
    the `last` one, an error that nobody foresaw is the verdict, too."""
    try:
        claim.start()
    except Unavailable:
        log.exception("an attempt cannot be counted", extra={"upload_id": str(claim.manifest.id)})
        return Outcome.WAITING
    try:
        within = time_limit(limit(services.settings, claim.manifest.size))
        with within, given_back(partial(claim.refund, delay=timedelta(0), reason=None)):
            failpoint("ingest.after-start", str(claim.manifest.id))
            leased = _store_and_record(services, claim)
    except Unavailable as error:
        return _wait(services, claim, error)
    except Superseded as error:
        claim.refund(delay=timedelta(seconds=1), reason=FailureReason(error.code, error.detail))
        return Outcome.AGAIN
    except MillraceError as error:
        return fail(services, claim, FailureReason(error.code, error.detail))
    except Exception as error:
        # A fault of ours or of a library: it counts, so that after a few it is looked at alone and then put aside.
        log.exception("ingest failed unexpectedly", extra={"upload_id": str(claim.manifest.id)})
        reason = FailureReason.unforeseen(error)
        if last:
            return fail(services, claim, reason)
        delay = backoff(services.settings, claim.attempts.total)
        claim.refund(delay=delay, reason=reason, counted=True)
        return Outcome.AGAIN
    except BaseException:  # the process is told to go
        claim.refund(delay=timedelta(0), reason=None)
        raise
    manifest = claim.manifest
    ids = {"upload_id": str(manifest.id), "asset_id": str(manifest.asset_id), "sha256": manifest.sha256.hex()}
    log.info("ingest stored", extra=ids)  # object keys, and what is said of variants, begin with the hash
    if leased:
        derive.work(services, leased, local=claim.body())
    return Outcome.STORED


def _wait(services: Services, claim: Claim, error: Unavailable, *, counted: bool = False) -> Outcome:
    """Put the entry off: it is innocent, and due again later."""
    delay = backoff(services.settings, claim.attempts.total)
    claim.refund(delay=delay, reason=FailureReason(error.code, error.detail), counted=counted)
    log.warning(
        "ingest waits", extra={"upload_id": str(claim.manifest.id), "reason": error.code, "detail": error.detail}
    )
    return Outcome.AGAIN if _is_of_one_store(services, error) else Outcome.WAITING


def fail(services: Services, claim: Claim, reason: FailureReason) -> Outcome:
    """Put the entry aside, visibly. The file comes first; the sweep makes up for a row that could not be written."""
    failpoint("ingest.before-quarantine", str(claim.manifest.id))
    try:
        claim.quarantine(reason)
    except Unavailable as error:
        claim.refund(
            delay=backoff(services.settings, claim.attempts.total), reason=FailureReason(error.code, error.detail)
        )
        return Outcome.WAITING
    log.error("ingest failed", extra={"upload_id": str(claim.manifest.id), "reason": reason.kind})
    try:
        entry = services.staging.look(claim.manifest.id)
        if entry is not None:
            services.metadata.failures.put(entry)
    except Unavailable:
        log.warning("the failure is not in the database yet", extra={"upload_id": str(claim.manifest.id)})
    except Exception:  # the entry is settled all the same
        log.exception("the failure is not in the database yet", extra={"upload_id": str(claim.manifest.id)})
    return Outcome.FAILED


def _ingest_alone(services: Services, claim: Claim) -> Outcome:
    """After several starts that never ended: one run in a child. Only what the child does to itself counts."""
    upload_id = claim.manifest.id
    log.warning("ingest runs alone", extra={"upload_id": str(upload_id), "unfinished": claim.attempts.unfinished})
    try:
        verdict = parent.run(services.settings, ["ingest", str(upload_id)], size=claim.manifest.size)
    except Unavailable as error:
        return _wait(services, claim, error, counted=True)  # it stays alone
    if services.staging.look(upload_id) is None:
        return Outcome.STORED
    if verdict is not None:
        return fail(services, claim, verdict)
    entry = services.staging.look(upload_id)
    return Outcome.FAILED if entry is not None and entry.quarantined else Outcome.WAITING


def _store_and_record(services: Services, claim: Claim) -> Sequence[LeasedVariant]:
    """Returns the variants that were leased to this process for rendering."""
    manifest = _with_frames(services, claim)
    if manifest.keyed or claim.attempts.total > 1:
        recorded = services.metadata.assets.replay(manifest, attempts=claim.attempts.total)
        if recorded is not None:
            return _done(claim, recorded)
    facts = BlobFacts(manifest.sha256, manifest.size, manifest.image.media_type)
    wants = services.profiles.eager(manifest.path, manifest.image)
    work = services.settings.work
    inline = services.settings.variants.eager == "inline"
    lease = timedelta(seconds=work.lease_seconds) if inline and wants else None
    for _ in range(RESTARTS):
        plan = services.placements.plan(manifest.path, facts)
        try:
            replicas = _place_all(services, claim, facts, plan.now)
            recorded = services.metadata.assets.record(
                manifest, replicas, wants, later=plan.later, attempts=claim.attempts.total, lease=lease
            )
        except Superseded:
            services.placements.forget_states()
            continue
        leased = _done(claim, recorded)
        if wants and not inline:
            services.hints.derive(manifest.sha256, interactive=False)
        return leased
    raise Superseded("a reservation was lost several times in a row, to gc or a store that is emptied")


def _place_all(services: Services, claim: Claim, facts: BlobFacts, stores: Sequence[str]) -> list[Replica]:
    """Put the bytes into each of the stores.

    Raises:
        Superseded: one of them takes nothing new any more.
        Unavailable: one of them does not take them. Those before it need not take them again.
    """
    for name in stores:  # or the first would get the bytes again with every attempt, while the second is silent
        require_answers(services.silence(name))
    grace = timedelta(seconds=services.settings.work.gc_grace_seconds)
    reserved = services.metadata.blobs.reserve([(facts, name) for name in stores], grace)
    failpoint("ingest.after-reserve", str(claim.manifest.id))
    replicas: list[Replica] = []
    try:
        for one in reserved:
            replicas.append(place(services, services.store(one.replica.store), one, claim.body()))
            failpoint("ingest.after-put", str(claim.manifest.id))
    except Unavailable:
        remember(services, replicas)
        raise
    return replicas


def _with_frames(services: Services, claim: Claim) -> Manifest:
    """The frame count the header probe could not give. Too many frames end the ingest visibly."""
    manifest = claim.manifest
    if manifest.image.frames is not None:
        return manifest
    body = claim.body()
    body.seek(0)
    return replace(manifest, image=count(body, manifest.image, size=manifest.size, limits=services.settings.limits))


def _done(claim: Claim, recorded: Recorded) -> Sequence[LeasedVariant]:
    """Drop the entry, since the rows tell of the upload by now.

    Raises:
        IdempotencyConflict: they tell of another upload.
    """
    manifest = claim.manifest
    failpoint("ingest.after-record", str(manifest.id))
    if recorded.conflict:
        raise IdempotencyConflict(
            f"the Idempotency-Key of {manifest.path} was used before for other bytes, another path or other metadata"
        )
    claim.drop()
    failpoint("ingest.after-drop", str(manifest.id))
    return recorded.leased


def _is_of_one_store(services: Services, error: Unavailable) -> bool:
    """Others may go to other stores."""
    return isinstance(error, StoreUnavailable | Forbidden) and len(services.stores) > 1
