"""Whose a store is: a marker object in it carries the id of the installation that filled it, and the store's name.

A disk that is not mounted looks like an empty store, an empty bucket like one that lost everything, and another
installation's store holds the same keys. So a store is recognised before it is believed: at the first use in a process,
whenever an object is missing, and every `FRESH_SECONDS`. The marker comes into a new store by itself: into one in which
the database has no replica and never had an identity, and in which nothing of ours lies. Else a person puts it there
(`millrace storage identify`), or `millrace migrate` does where it finds what the rows say
(pipeline/replicas/identification.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final
from uuid import UUID

from core.errors import (
    AlreadyExists,
    Archived,
    MillraceError,
    Misconfigured,
    NoStore,
    NotFound,
    StrangeStore,
    Unavailable,
)
from core.failpoints import failpoint
from metadata.rules import Rules
from metadata.stores import Stores
from pipeline.installation import Installation
from storage.interface import ObjectStore
from storage.object_keys import CATALOGUE, MARKER, named, segment

FRESH_SECONDS: Final = 30.0
REFUSED_SECONDS: Final = 1.0
"""For so long a store that was not recognised is not looked at again by those who want to use it."""
MAX_BYTES: Final = 4096
LISTED: Final = 1000
"""Objects of each beginning that are looked at before a store is marked as new: one page of S3."""
HASHES_BEGIN: Final = "0123456789abcdef"
NOT_OURS: Final = "this is not the store that this installation filled"
NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Marker:
    installation: UUID
    store: str | None
    """None: written before markers told the name."""

    def text(self) -> bytes:
        said = {"installation": str(self.installation)}
        return json.dumps(said if self.store is None else {**said, "store": self.store}).encode()

    @classmethod
    def parse(cls, text: bytes) -> Marker:
        """
        Raises:
            ValueError: it is none.
        """
        try:
            said = json.loads(text)
            name = said.get("store")
            if name is not None and not isinstance(name, str):
                raise ValueError(name)
            return cls(UUID(said["installation"]), name)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None


def marker_of(store: ObjectStore, own: UUID | None = None) -> Marker | None:
    """Read it, twice where it is missing: one answer condemns nothing. In an archive it cannot be read, but told from
    this installation's `own`.

    Raises:
        NoStore: there is nothing where the store should be.
        Misconfigured: there is something else in the place of the marker.
        Unavailable: the store does not say.
    """
    for _ in range(2):
        try:
            with store.open(MARKER) as body:
                return Marker.parse(body.read(MAX_BYTES))
        except NotFound:
            continue
        except Archived:
            for one in () if own is None else (Marker(own, store.name), Marker(own, None)):
                if store.head(MARKER).sha256 == hashlib.sha256(one.text()).digest():
                    return one
            raise  # another installation's, and it cannot be read whose
        except ValueError:
            raise Misconfigured(
                f"{MARKER!r} in {store.name!r} is not a marker of Millrace: look what wrote it"
            ) from None
    return None


def mark(store: ObjectStore, marker: Marker) -> None:
    """
    Raises:
        AlreadyExists: the store has another one.
        Unavailable: the store does not take it now.
    """
    text = marker.text()
    digest = hashlib.sha256(text).digest()
    store.put(MARKER, io.BytesIO(text), size=len(text), sha256=digest, media_type="application/json")


def objection(name: str, marker: Marker, own: UUID | None) -> str | None:
    """Why a store with this marker is not the one that the settings call so, and what to do."""
    if marker.installation != own:
        return (
            f"{name}: {NOT_OURS}: it belongs to the installation {marker.installation}, and this one is {own or 'new'}."
            " Give each installation a store of its own; or, if that one is gone for good, run"
            f" `millrace storage identify {name} --take-over {marker.installation}`"
        )
    if marker.store not in (None, name):
        return (
            f"{name}: {NOT_OURS}: it is {marker.store!r} of this installation. Look whether the settings of two stores"
            f" are mixed up; if not, run `millrace storage identify {name} --take-over {own}`"
        )
    return None


def missing(name: str) -> str:
    return (
        f"{name}: {NOT_OURS}: its marker is not there. Look whether its disk is mounted, and whether the settings name"
        f" the right place. If it is the right one all the same, run `millrace storage identify {name}`"
    )


def _holds_any(store: ObjectStore) -> bool:
    """Does anything lie there that Millrace stored? Hashes are spread evenly, so a few pages of all that begins as they
    do tell, also where millions of strangers' objects come before the first hash."""
    listed = (islice(store.scan(prefix), LISTED) for prefix in (CATALOGUE, *HASHES_BEGIN))
    return any((named(one.key) or segment(one.key)) is not None for page in listed for one in page)


class StoreRecognition:
    """Of one store, as one process sees it. Safe for threads and for fork; what was seen lately costs a comparison."""

    def __init__(
        self,
        store: ObjectStore,
        installation: Installation,
        stores: Stores,
        rules: Rules,
        *,
        looks_are_cheap: bool = False,
    ) -> None:
        """`looks_are_cheap`: beside a write they cost next to nothing, so every writer looks."""
        self._store = store
        self._installation = installation
        self._stores = stores
        self._rules = rules
        self._looks_are_cheap = looks_are_cheap
        self._seen_at = NEVER
        self._refused_at = NEVER
        self._refusal: MillraceError | None = None
        self._own: UUID | None = None
        self._noted = False
        self._turn, self._pid = threading.Lock(), os.getpid()

    def require(self, *, writing: bool = False) -> None:
        asked = time.monotonic()
        fresh = asked - self._seen_at < (0 if writing and self._looks_are_cheap else FRESH_SECONDS)
        if fresh and (not writing or self._installation.ask() == self._own):
            return
        turn = self._its_turn()
        known = self._seen_at > NEVER
        if not turn.acquire(blocking=not known or writing):
            return  # another thread looks just now, and until then it is the one that it was
        try:
            if self._seen_at >= asked:
                return
            if self._refusal is not None and self._refused_at >= asked - self._forbearance():
                raise type(self._refusal)(self._refusal.detail)
            self.look(writing=writing)
        finally:
            turn.release()

    def look(self, *, writing: bool = True) -> None:
        began = time.monotonic()
        try:
            self._look(writing)
        except MillraceError as error:
            self._refused_at, self._refusal = time.monotonic(), error
            if isinstance(error, StrangeStore):
                self._seen_at = NEVER
            raise
        self._seen_at, self._refusal = began, None

    def _look(self, writing: bool) -> None:
        """Look at the marker. Readers believe what the host remembers of its installation: they need no PostgreSQL."""
        remembered = None if writing else self._installation.known()
        own = remembered or self._installation.ask()
        marker = self._found(own)
        name = self._store.name
        if marker is None or objection(name, marker, own) is not None:
            own = self._installation.ask()
        if marker is None:
            try:
                self._fill(own)
            except StrangeStore:
                marker = self._found(own)  # another process may have been quicker
                if marker is None:
                    raise
        if marker is not None and (why := objection(name, marker, own)) is not None:
            raise StrangeStore(why)
        self._own = own
        if not self._noted and self._installation.answered():
            with suppress(Unavailable):  # some process notes it before anything can be recorded in this store
                self._stores.identified(self._store.name, self._rules)
                self._noted = True

    def _found(self, own: UUID) -> Marker | None:
        try:
            return marker_of(self._store, own)
        except NoStore:
            return None
        except Misconfigured as error:
            raise StrangeStore(f"{self._store.name}: {NOT_OURS}: {error.detail}") from None

    def _fill(self, own: UUID) -> None:
        """Put a marker into the store, which has none, if it is a new one."""
        name = self._store.name
        if not self._stores.is_new(name):
            raise StrangeStore(missing(name))
        self._store.establish()
        if _holds_any(self._store):
            raise StrangeStore(
                f"{name}: {NOT_OURS}: objects lie in it, and the database knows none of them. If the database was lost,"
                f" run `millrace storage rebuild`; if they may go, `millrace storage identify {name}`"
            )
        failpoint("recognition.before-mark", name)
        try:
            mark(self._store, Marker(own, name))
        except AlreadyExists:
            raise StrangeStore(f"{name}: {NOT_OURS}: another one marks it just now") from None
        failpoint("recognition.after-mark", name)

    def _forbearance(self) -> float:
        """Return how old a refusal may be, in seconds, that is not looked at again: that of a store which did not
        answer is for those who waited for the same answer."""
        return REFUSED_SECONDS if isinstance(self._refusal, StrangeStore) else 0.0

    def _its_turn(self) -> threading.Lock:
        """Return a lock of this process: one that is held while a process forks is never freed in the child."""
        if self._pid != os.getpid():
            self._turn, self._pid = threading.Lock(), os.getpid()
        return self._turn
