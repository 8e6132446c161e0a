"""Whose a store is: a marker object in it carries the id of the installation that may remove what it does not know.

A database that was made anew knows none of a store's objects, and would take all of them for left over. So nothing that
only a listing found is removed from a store without this installation's marker, and a person puts it there.
"""

from __future__ import annotations

import hashlib
import io
import json
from uuid import UUID

from core.errors import AlreadyExists, Archived, BadRequest, Misconfigured, NotFound
from core.failpoints import failpoint
from pipeline.services import Services
from storage.object_keys import MARKER

MAX_BYTES = 4096


def is_ours(services: Services, name: str) -> bool:
    """Does the store carry the marker of this installation? Changes nothing.

    Raises:
        Unavailable: the store does not say.
    """
    own = services.metadata.inventory.installation()
    return own is not None and found(services, name) == own


def found(services: Services, name: str) -> UUID | None:
    """The installation whose marker the store carries, if any.

    Raises:
        Misconfigured: there is something else in the place of the marker.
        Unavailable: the store does not say.
    """
    store = services.store(name)
    try:
        with store.open(MARKER) as body:
            return UUID(json.loads(body.read(MAX_BYTES))["installation"])
    except NotFound:
        return None
    except Archived:
        own = services.metadata.inventory.installation()
        if own is None or store.head(MARKER).sha256 != hashlib.sha256(_text(own)).digest():
            raise  # somebody else's, and nobody can read whose
        return own
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Misconfigured(f"{MARKER!r} in {name!r} is not a marker of Millrace: look what wrote it") from None


def require_ours(services: Services, name: str) -> None:
    """
    Raises:
        Misconfigured: the store has no marker, or another installation's; it says what to run.
    """
    whose = found(services, name)
    if whose is None:
        raise Misconfigured(
            f"the store {name!r} does not say that it belongs to this installation. Look with `millrace storage gc"
            f" --dry-run --store {name}` at what would go, and if all of that may go, run"
            f" `millrace storage gc --adopt --store {name}`"
        )
    if whose != services.metadata.inventory.installation():
        raise Misconfigured(
            f"the store {name!r} belongs to the installation {whose}, and this is another one. If that one is gone, run"
            f" `millrace storage gc --adopt --take-over {whose} --store {name}`"
        )


def adopt(services: Services, name: str, *, take_over: UUID | None = None) -> None:
    """Put this installation's marker into the store. One of another installation gives way only where it is named.

    Raises:
        BadRequest: another installation's marker is there, and `take_over` is not its id.
        Unavailable: the store does not take it now.
    """
    own, whose = services.metadata.inventory.make_installation(), found(services, name)
    if whose == own:
        return
    store = services.store(name)
    if whose is not None:
        if whose != take_over:
            raise BadRequest(
                f"the store {name!r} belongs to the installation {whose}: if that one is gone, add --take-over {whose}"
            )
        store.delete([MARKER])
        failpoint("adopt.after-delete", name)
    text = _text(own)
    digest = hashlib.sha256(text).digest()
    try:
        store.put(MARKER, io.BytesIO(text), size=len(text), sha256=digest, media_type="application/json")
    except AlreadyExists:
        raise BadRequest(f"somebody else adopts the store {name!r} just now") from None


def _text(installation: UUID) -> bytes:
    return json.dumps({"installation": str(installation)}).encode()
