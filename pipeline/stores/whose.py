"""What `millrace doctor` says of a store's marker. It leaves nothing behind: a new store is marked by its users."""

from __future__ import annotations

from uuid import UUID

from core.errors import DatabaseUnavailable, NoStore
from core.findings import Finding, note, ok, problem
from core.settings import Settings
from metadata.facade import Metadata
from pipeline.stores.recognition import marker_of, missing, objection
from storage.interface import ObjectStore
from storage.staging import installation

DATABASE_SECONDS = 3.0


def whose(settings: Settings, store: ObjectStore, *, reading: bool) -> Finding:
    """Look whether it is the store that this installation filled. `reading`: nothing may be written there.

    Raises:
        NoStore: there is nothing where it should be.
        Unavailable: it does not say.
    """
    own, is_new = _recorded(settings, store.name)
    begins = is_new if is_new is not None else own is None
    try:
        marker = marker_of(store, own)
    except NoStore:
        if not begins:
            raise
        marker = None
    if marker is not None and (own or is_new is not None):
        why = objection(store.name, marker, own)
        return problem("marker", why) if why else ok("marker", "it is the store that this installation filled")
    if begins and not reading:
        store.establish()
    if is_new is None:
        return note("marker", "PostgreSQL does not say whether it is the store that this installation filled")
    if is_new:
        return ok("marker", "nothing of this installation is in it yet")
    return problem("marker", missing(store.name))


def _recorded(settings: Settings, name: str) -> tuple[UUID | None, bool | None]:
    """Return this installation, and whether the store is a new one. None: PostgreSQL does not say, of which the
    operator is told elsewhere."""
    if settings.database_url is None:
        return installation.kept(settings), None
    metadata = Metadata.open(settings, pool_size=1, deadline_seconds=DATABASE_SECONDS)
    try:
        return metadata.inventory.installation(), metadata.stores.is_new(name)
    except (DatabaseUnavailable, RuntimeError):  # the latter: it refuses the question
        return installation.kept(settings), None
    finally:
        metadata.close()
