"""Variants of one source blob: leased, rendered from one decode, stored, and marked ready in one transaction.

Nothing rests on this process being alone: every write carries its lease's fence, every object its own generation. What
a stale holder made is garbage that names itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

from core.errors import Archived, MillraceError, StoreUnavailable, Superseded, Unavailable
from core.failpoints import failpoint
from core.model import BlobFacts, FailureReason, LeasedVariant, Replica, Reservation
from imaging.recipe import Recipe
from imaging.render import Rendered, RenderFailed, Scope, render
from metadata.variants.variants import Stored
from pipeline.backoff import backoff
from pipeline.isolation import parent
from pipeline.isolation.limit import limit
from pipeline.isolation.watchdog import time_limit
from pipeline.leaving import given_back
from pipeline.renewal import Renewal
from pipeline.replicas import archive, sources
from pipeline.replicas.put_reserved import place, remember
from pipeline.rules.placement import Plan
from pipeline.scratch import scratch, scratch_root
from pipeline.services import Services

log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()
"""One decode in a process, so that its memory is bounded by one picture …"""
_one_apart = threading.Lock()
"""… and one for those who wait, where they share a process with all others."""

RESTARTS = 5
PARALLEL_PUTS = 4


@dataclass(frozen=True, slots=True)
class Output:
    leased: LeasedVariant
    blob: BlobFacts
    path: Path


def derive(services: Services, source: bytes, *, apart: bool = False) -> bool:
    """Render what is due of `source`. True: more was than goes together. `apart`: a request waits for it, so it waits
    for no decode of a backlog."""
    lease = timedelta(seconds=services.settings.work.lease_seconds)
    leased = services.metadata.variants.lease(source, lease)
    if leased:
        failpoint("derive.after-lease", source.hex())
        work(services, leased, apart=apart)
    return bool(leased) and leased[0].more


def work(
    services: Services,
    leased: Sequence[LeasedVariant],
    *,
    local: BinaryIO | None = None,
    apart: bool = False,
) -> None:
    """Render leased variants of one source, from `local` when the bytes are at hand. Settles every one of them: ready,
    failed, or due again; it raises only when the process is told to go."""
    if len(leased) == 1 and leased[0].unfinished > services.settings.work.max_unfinished:
        _work_alone(services, leased[0])
        return
    with _renewed(services, leased) as renewal:
        _settle(services, leased, local, renewal, apart=apart)


def _renewed(services: Services, leased: Sequence[LeasedVariant]) -> Renewal:
    lease = timedelta(seconds=services.settings.work.lease_seconds)

    def renew() -> bool:
        return len(services.metadata.variants.renew(leased, lease)) == len(leased)

    return Renewal(services, renew, {"source": leased[0].source.hex()})


def work_leased(services: Services, leased: LeasedVariant) -> None:
    """The child's part of a run alone: the parent renews the lease."""
    _settle(services, [leased], None, None)


def _settle(
    services: Services,
    leased: Sequence[LeasedVariant],
    local: BinaryIO | None,
    renewal: Renewal | None,
    *,
    apart: bool = False,
) -> None:
    try:
        with given_back(partial(_give_back, services, leased, delay=timedelta(0))):
            _render_and_finish(services, leased, local, apart=apart)
    except Superseded:
        log.warning("a lease was lost while rendering", extra={"source": leased[0].source.hex()})
    except Archived as error:
        _restore_first(services, leased, error)
    except Unavailable as error:
        reason = FailureReason(error.code, error.detail)
        _give_back(services, leased, delay=_delay(services, leased), reason=reason)
    except MillraceError as error:
        _fail(services, leased, FailureReason(error.code, error.detail))
    except Exception as error:
        log.exception("rendering failed unexpectedly", extra={"source": leased[0].source.hex()})
        _fail(services, leased, FailureReason.unforeseen(error))
    except BaseException:  # the process is told to go
        _give_back(services, leased, delay=timedelta(0))
        raise


def _render_and_finish(
    services: Services, leased: Sequence[LeasedVariant], local: BinaryIO | None, *, apart: bool
) -> None:
    with scratch(scratch_root(services.settings)) as directory, _source(services, leased[0].source, local) as body:
        size = body.seek(0, 2)
        with _one_apart if apart else _one_at_a_time, time_limit(limit(services.settings, size)):
            outputs = _render(services, leased, body, size, directory)
        if outputs:
            _finish(services, outputs)


def _render(
    services: Services, leased: Sequence[LeasedVariant], body: BinaryIO, size: int, directory: Path
) -> list[Output]:
    recipes = [Recipe.from_canonical(one.recipe) for one in leased]
    outputs: list[Output] = []
    settled: set[Scope] = set()
    for result in render(body.fileno(), size, recipes, directory):
        one = leased[result.index]
        if isinstance(result, Rendered):
            outputs.append(Output(one, BlobFacts(result.sha256, result.size, result.media_type), result.path))
        else:
            _refuse(services, one, result, settled)
        failpoint("derive.after-render", str(one.id))
    return outputs


def _refuse(services: Services, leased: LeasedVariant, result: RenderFailed, settled: set[Scope]) -> None:
    """Refuse the picture: it is what it is, so asking again cannot help, and the others must not wait for it."""
    reason = FailureReason(result.error.code, result.error.detail)
    if result.scope == "variant":
        services.metadata.variants.failed([leased], reason, final=True, delay=timedelta(0))
    elif not settled & {"source", result.scope}:
        settled.add(result.scope)
        services.metadata.variants.undecodable(leased.source, reason, frames=result.scope == "frames")


def _finish(services: Services, outputs: Sequence[Output]) -> None:
    path = services.metadata.variants.path_of(outputs[0].leased.source) if services.placements.rules else "/"
    for _ in range(RESTARTS):
        plans = {one.blob.sha256: services.placements.plan(path, one.blob, variant=True) for one in outputs}
        try:
            reserved = _reserve(services, outputs, plans)
            failpoint("derive.after-reserve", str(outputs[0].leased.id))
            replicas = _put(services, reserved, outputs)
            failpoint("derive.after-put", str(outputs[0].leased.id))
            done = [Stored(one.leased, replicas[one.blob.sha256], plans[one.blob.sha256].later) for one in outputs]
            finished = services.metadata.variants.finish(done)
        except Superseded:
            services.placements.forget_states()
            continue
        failpoint("derive.after-finish", str(outputs[0].leased.id))
        log.info("variants ready", extra={"source": outputs[0].leased.source.hex(), "ready": finished})
        return
    raise StoreUnavailable("a reservation was lost several times in a row, to gc or a store that is emptied")


def _reserve(services: Services, outputs: Sequence[Output], plans: Mapping[bytes, Plan]) -> list[Reservation]:
    grace = timedelta(seconds=services.settings.work.gc_grace_seconds)
    blobs = {one.blob.sha256: one.blob for one in outputs}
    wanted = [(blob, name) for sha256, blob in blobs.items() for name in plans[sha256].now]
    return services.metadata.blobs.reserve(wanted, grace)


def _put(services: Services, reserved: Sequence[Reservation], outputs: Sequence[Output]) -> dict[bytes, list[Replica]]:
    """Side by side: a put is mostly waiting, for a disk to sync or for a network."""
    paths = {output.blob.sha256: output.path for output in outputs}

    def put(reservation: Reservation) -> Replica:
        replica = reservation.replica
        with paths[replica.blob.sha256].open("rb") as file:
            return place(services, services.store(replica.store), reservation, file)

    with ThreadPoolExecutor(PARALLEL_PUTS) as pool:
        puts = [pool.submit(put, reservation) for reservation in reserved]
    failures = [failure for one in puts if (failure := one.exception()) is not None]
    replicas = [one.result() for one in puts if one.exception() is None]
    if failures:
        remember(services, replicas)
        raise failures[0]
    placed: dict[bytes, list[Replica]] = {}
    for replica in replicas:
        placed.setdefault(replica.blob.sha256, []).append(replica)
    return placed


def _source(services: Services, source: bytes, local: BinaryIO | None) -> AbstractContextManager[BinaryIO]:
    if local is not None:
        return nullcontext(local)
    return sources.local_file(services, source)


def _work_alone(services: Services, leased: LeasedVariant) -> None:
    log.warning("rendering runs alone", extra={"variant": str(leased.id), "unfinished": leased.unfinished})
    size = max((replica.blob.size for replica in services.metadata.blobs.replicas(leased.source)), default=0)
    said = parent.leased_to_json(leased)
    try:
        with _renewed(services, [leased]):
            verdict = parent.run(services.settings, ["derive", str(leased.id)], size=size, text=said)
    except Unavailable as error:
        reason = FailureReason(error.code, error.detail)
        _give_back(services, [leased], delay=_delay(services, [leased]), reason=reason)
        return
    if verdict is not None:
        _conclude(services, leased, verdict, final=True)


def _fail(services: Services, leased: Sequence[LeasedVariant], reason: FailureReason) -> None:
    """An error of the variant itself: tried again, one by one, until the attempts are used up."""
    for one in leased:
        final = one.attempts >= services.settings.work.variant_attempts
        _conclude(services, one, reason, final=final)


def _conclude(services: Services, leased: LeasedVariant, reason: FailureReason, *, final: bool) -> None:
    delay = timedelta(0) if final else backoff(services.settings, leased.attempts)
    with suppress(Unavailable):  # the lease ends by itself, and the next holder comes to the same
        services.metadata.variants.failed([leased], reason, final=final, delay=delay)


def _give_back(
    services: Services, leased: Sequence[LeasedVariant], *, delay: timedelta, reason: FailureReason | None = None
) -> None:
    with suppress(Unavailable):
        services.metadata.variants.give_back(leased, delay=delay, reason=reason)


def _restore_first(services: Services, leased: Sequence[LeasedVariant], error: Archived) -> None:
    """Due again whenever the job that restores the source looks whether it came."""
    with suppress(Unavailable):
        archive.begin(services, leased[0].source, error)
    delay = archive.interval(error.retry_after)
    _give_back(services, leased, delay=delay, reason=FailureReason(error.code, error.detail))


def _delay(services: Services, leased: Sequence[LeasedVariant]) -> timedelta:
    return backoff(services.settings, max(one.attempts for one in leased))
