"""Visible failures: looking at them, and wishing that one is tried again or let go.

The bytes of a failed ingest are on one host's disk, so a wish about it is a word on its row that this host carries out
at its next sweep. A failed variant has no such home and is settled at once, and so is a failure whose host is lost when
it is let go: nobody else would ever carry that out.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from core.errors import BadRequest, NotFound
from core.failpoints import failpoint
from core.model import Failure, Page
from pipeline.services import Services

MAX_PAGE = 200

Wish = Literal["retry", "discard"]


def page(services: Services, *, after: str | None, limit: int) -> Page[Failure]:
    """Newest first."""
    return services.metadata.failures.page(after, min(limit, MAX_PAGE))


def find(services: Services, failure_id: UUID) -> Failure:
    """
    Raises:
        NotFound: there is no such failure (any more).
    """
    failure = services.metadata.failures.find(failure_id)
    if failure is None:
        raise NotFound(f"there is no failure {failure_id}")
    return failure


def wish(services: Services, failure_id: UUID, what: Wish) -> Failure | None:
    """The failure with the wish on it, or None: it is settled already.

    Raises:
        BadRequest: a lost original is discarded by deleting its asset.
        NotFound: there is no such failure (any more).
    """
    failures = services.metadata.failures
    failure = find(services, failure_id)
    failpoint("failure.before-wish")
    if failure.subject == "original":
        return _wish_for_original(services, failure_id, what)
    if failure.subject == "source":
        variants = services.metadata.variants
        (variants.forget_source if what == "discard" else variants.retry_source)(failure_id)
    elif failure.subject == "variant" and what == "discard":
        services.metadata.variants.forget(failure_id)
    elif failure.subject == "variant":
        services.metadata.variants.retry(failure_id)
    elif what == "discard" and failure.reason.kind == "host-lost":
        failures.remove(failure_id)
    else:
        return failures.wish(failure_id, what)
    return None


def _wish_for_original(services: Services, asset_id: UUID, what: Wish) -> Failure | None:
    if what == "discard":
        raise BadRequest("this is an asset whose bytes are lost: delete it, or bring the same picture again")
    return services.metadata.failures.look_again(asset_id)
