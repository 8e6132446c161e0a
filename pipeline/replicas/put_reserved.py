"""Bytes into a store, under a reservation: before any row says that they are there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from core.errors import AlreadyExists, NotFound, Unavailable
from core.model import Replica, Reservation
from pipeline.services import Services
from pipeline.stores.failover import writing
from storage.interface import ObjectStore


def place(services: Services, store: ObjectStore, reservation: Reservation, body: BinaryIO) -> Replica:
    """Make sure the reserved object is in the store with the right bytes; what is there already is not sent again.

    Returns the replica that holds them: another generation than the reserved one where that was found missing or torn.

    Raises:
        Corrupt: `body` does not hold the bytes that were reserved.
        Unavailable: the store does not take them now.
    """
    with writing(services.silence(store.name), reservation.replica.blob.size):
        return _place(services, store, reservation, body)


def remember(services: Services, placed: Sequence[Replica]) -> None:
    """Another store did not take its own, so all of them are wanted again: these are looked at then, and not sent once
    more, however often the other one refuses. Where it is not written down the next attempt sends them."""
    if placed:
        with suppress(Unavailable):
            services.metadata.blobs.placed(placed)


def _place(services: Services, store: ObjectStore, reservation: Reservation, body: BinaryIO) -> Replica:
    replica = reservation.replica
    blob = replica.blob
    if (reservation.healthy or reservation.placed) and _is_there(store, replica):
        return replica
    if reservation.healthy or reservation.placed or reservation.corrupt:
        replica = services.metadata.blobs.renew(replica).replica
    body.seek(0)
    try:
        store.put(replica.key, body, size=blob.size, sha256=blob.sha256, media_type=blob.media_type)
    except AlreadyExists:
        # Somebody's torn or foreign object holds this key: leave it to gc and take another.
        replica = services.metadata.blobs.renew(replica).replica
        body.seek(0)
        store.put(replica.key, body, size=blob.size, sha256=blob.sha256, media_type=blob.media_type)
    return replica


def _is_there(store: ObjectStore, replica: Replica) -> bool:
    """Ask twice whether it is there: if not, it gets another key, and the object under this one is garbage."""
    for _ in range(2):
        with suppress(NotFound):
            found, blob = store.head(replica.key), replica.blob
            if found.size == blob.size and found.sha256 in (None, blob.sha256):
                return True
    return False
