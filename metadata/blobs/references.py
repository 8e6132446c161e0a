"""The assets that hold a blob: any number of them, so they are read in pages and up to a bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, select

from metadata.schema import asset, asset_variant, variant

PAGE = 500
"""In one statement."""
MOST = 10_000
"""Of one blob. What has more of them stays where it is."""


class ManyReferences(Exception):
    """The blob is held by more assets than one transaction can look at."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An asset that holds a blob, as its original or as a variant that it shows."""

    path: str
    variant: bool
    accepted_at: datetime


def of(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    """Read the assets that hold a blob, as far as they are asked for; one may come several times.

    Raises:
        ManyReferences: when `MOST` were asked for and there are more.
    """
    left = MOST
    for reference in chain(_originals(connection, sha256), _shown(connection, sha256)):
        if not left:
            raise ManyReferences
        left -= 1
        yield reference


_FACTS = asset.c.id, asset.c.path_text, asset.c.accepted_at


def _originals(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    query = select(*_FACTS).where(asset.c.blob == sha256).order_by(asset.c.id).limit(PAGE)
    return _pages(connection, query, asset.c.id, is_variant=False)


def _shown(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    """Variant by variant: over all of them at once, the holders of each would be read and sorted for every page."""
    variants = select(variant.c.id).where(variant.c.blob == sha256).order_by(variant.c.id).limit(MOST + 1)
    for variant_id in connection.scalars(variants).all():
        query = select(*_FACTS).join_from(asset_variant, asset, asset.c.id == asset_variant.c.asset_id)
        own = query.where(asset_variant.c.variant_id == variant_id)
        page = own.order_by(asset_variant.c.asset_id).limit(PAGE)
        yield from _pages(connection, page, asset_variant.c.asset_id, is_variant=True)


def _pages(
    connection: Connection, page: Select[Any], place: ColumnElement[UUID], *, is_variant: bool
) -> Iterator[Reference]:
    after = UUID(int=0)
    while found := connection.execute(page.where(place > after)).all():
        for row in found:
            yield Reference(row.path_text, is_variant, row.accepted_at)
        if len(found) < PAGE:
            return
        after = found[-1].id
