"""Where blobs lie and which assets hold them, for comparing that with the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, LargeBinary, column, func, select, true, update

from core.model import BlobFacts
from database.transactions import Database
from metadata.blobs import references
from metadata.blobs.collection import Held
from metadata.blobs.references import ManyReferences, Reference
from metadata.schema import asset, asset_variant, blob, replica, variant
from metadata.unnest import Rows

FEW = 20
"""Assets that hold a blob and are read together with those of others."""


class Placing:
    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, after: bytes, limit: int) -> list[tuple[BlobFacts, Sequence[Held]]]:
        """Return blobs in the order of their hashes, and where each lies because of a rule, or is to."""
        return self._database.read(_page, after, limit)

    def references(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[Reference]]:
        """Return the assets that hold these blobs; of blobs with more than can be looked at, as many as can."""
        return self._database.read(_references, hashes)

    def leave_to_gc(self, hashes: Sequence[bytes]) -> None:
        """Make these blobs due, so that gc looks at them soon."""
        due = update(blob).where(blob.c.sha256.in_(hashes), blob.c.gc_after.is_(None)).values(gc_after=func.now())
        self._database.run(lambda connection: connection.execute(due) and None)


def _page(connection: Connection, after: bytes, limit: int) -> list[tuple[BlobFacts, Sequence[Held]]]:
    query = select(blob.c.sha256, blob.c.size, blob.c.media_type).where(blob.c.sha256 > after)
    blobs = {row.sha256: BlobFacts(*row) for row in connection.execute(query.order_by(blob.c.sha256).limit(limit))}
    held: dict[bytes, list[Held]] = {sha256: [] for sha256 in blobs}
    homes = select(replica).where(replica.c.blob.in_(blobs), replica.c.promoted_at.is_(None))
    for row in connection.execute(homes) if blobs else ():
        held[row.blob].append(Held(row.store, row.stands_for or row.store, row.state == "healthy"))
    return [(facts, held[sha256]) for sha256, facts in blobs.items()]


_ASKED = Rows("asked", column("sha256", LargeBinary))
_FACTS = asset.c.path_text, asset.c.accepted_at


def _few_originals() -> Any:
    few = select(*_FACTS).where(asset.c.blob == _ASKED.c.sha256).order_by(asset.c.id).limit(FEW + 1).lateral()
    return select(_ASKED.c.sha256, *few.c).select_from(_ASKED.table.join(few, true()))


def _few_shown() -> Any:
    made = select(variant.c.id).where(variant.c.blob == _ASKED.c.sha256).order_by(variant.c.id).limit(FEW + 1).lateral()
    asked = select(asset_variant.c.asset_id).where(asset_variant.c.variant_id == made.c.id)
    few = asked.order_by(asset_variant.c.asset_id).limit(FEW + 1).lateral()
    joined = _ASKED.table.join(made, true()).join(few, true()).join(asset, asset.c.id == few.c.asset_id)
    return select(_ASKED.c.sha256, *_FACTS).select_from(joined)


_FEW = [(_few_originals(), False), (_few_shown(), True)]


def _references(connection: Connection, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[Reference]]:
    found: dict[bytes, list[Reference]] = {sha256: [] for sha256 in hashes}
    asked, many = _ASKED.parameters([(sha256,) for sha256 in hashes]), set()
    for query, is_variant in _FEW:
        of_kind = dict.fromkeys(hashes, 0)
        for row in connection.execute(query, asked):
            found[row.sha256].append(Reference(row.path_text, is_variant, row.accepted_at))
            of_kind[row.sha256] += 1
        many |= {sha256 for sha256, count in of_kind.items() if count > FEW}
    for sha256 in many:
        found[sha256] = _many(connection, sha256)
    return found


def _many(connection: Connection, sha256: bytes) -> list[Reference]:
    seen: list[Reference] = []
    with suppress(ManyReferences):
        seen.extend(references.of(connection, sha256))
    return seen
