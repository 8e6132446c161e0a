"""Giving stores their identity, by an act of a person: a command, or a migration that finds what the rows say."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from core.errors import AlreadyExists, BadRequest, MillraceError, Misconfigured, NoStore, NotFound, StrangeStore
from core.failpoints import failpoint
from core.model import Replica
from pipeline.services import Services
from pipeline.stores.recognition import Marker, mark, marker_of, objection
from storage.interface import ObjectStore
from storage.object_keys import MARKER
from storage.recognised import bare

SAMPLE: Final = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the replicas that are recorded as healthy in a store: how many were looked for, and found with their sizes."""

    looked_for: int
    found: int


def is_ours(services: Services, name: str) -> bool:
    """Tell whether the store carries this installation's marker. Changes nothing.

    Raises:
        Unavailable: the store does not say.
    """
    own = services.metadata.inventory.installation()
    try:
        marker = marker_of(bare(services.store(name)), own)
    except NoStore:
        return False
    return own is not None and marker is not None and objection(name, marker, own) is None


def require_ours(services: Services, name: str) -> None:
    """
    Raises:
        Misconfigured: it is not what this installation filled; it says what to run.
        Unavailable: the store or PostgreSQL does not answer.
    """
    try:
        services.recognitions[name].look()
    except StrangeStore as error:
        raise Misconfigured(error.detail) from None


def identify(services: Services, name: str, *, take_over: UUID | None = None) -> Sample:
    """Put this installation's marker into the store, even among objects. Another one gives way only where it is named.

    Raises:
        BadRequest: the store has another marker, and `take_over` is not the id in it.
        Misconfigured: there is something else in the place of the marker.
        Unavailable: the store does not take it now.
    """
    own, store = services.installation.ask(), bare(services.store(name))
    store.establish()
    whose = marker_of(store, own)
    why = None if whose is None else objection(name, whose, own)
    if whose is None or why is not None:
        if whose is not None:
            if whose.installation != take_over:
                raise BadRequest(str(why))
            store.delete([MARKER])
            failpoint("identify.after-delete", name)
        try:
            mark(store, Marker(own, name))
        except AlreadyExists:
            raise BadRequest(f"somebody else identifies the store {name!r} just now") from None
        failpoint("identify.after-mark", name)
    services.metadata.stores.identified(name)
    return sample(services, name)


def identify_filled(services: Services, say: Callable[[str], None]) -> None:
    """Mark stores that were filled before they had markers: those in which a sample of what the rows say is found."""
    for name in services.stores:
        if not services.metadata.stores.lacks_identity(name):
            continue
        try:
            say(f"{name}: {_identified_if_filled(services, name)}")
        except MillraceError as error:
            say(f"{name}: not identified: {error.detail}")


def _identified_if_filled(services: Services, name: str) -> str:
    if marker_of(bare(services.store(name)), services.installation.ask()) is not None:
        services.recognitions[name].look()
        return "carries its marker"
    seen = sample(services, name)
    if not seen.found or seen.found < seen.looked_for:
        raise NotFound(
            f"{seen.found} of {seen.looked_for} recorded objects that were looked for are there. If it is the right"
            f" store, run `millrace storage identify {name}`"
        )
    identify(services, name)
    return f"identified, as {seen.found} recorded objects are there"


def sample(services: Services, name: str) -> Sample:
    """Look for some healthy replicas, from a place that is taken at random."""
    inventory, store = services.metadata.inventory, bare(services.store(name))
    chosen = inventory.healthy(name, os.urandom(32), SAMPLE)
    chosen += inventory.healthy(name, b"", SAMPLE - len(chosen)) if len(chosen) < SAMPLE else []
    chosen = list(dict.fromkeys(chosen))
    return Sample(len(chosen), sum(_is_there(store, one) for one in chosen))


def _is_there(store: ObjectStore, one: Replica) -> bool:
    for _ in range(2):
        try:
            return store.head(one.key).size == one.blob.size
        except NotFound:
            continue
    return False
