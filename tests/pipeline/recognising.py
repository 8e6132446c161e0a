"""What tests of a store's recognition have in common: pictures, what is read of them, and markers put by hand."""

from __future__ import annotations

from core.model import Asset
from pipeline.assets import read
from pipeline.stores.recognition import Marker, mark
from storage.interface import ObjectStore
from storage.object_keys import MARKER
from storage.recognised import bare
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURES = [encoded(photo(40 + number, 30), "JPEG") for number in range(4)]
NOT_OURS = "not the store that this installation filled"


def content(line: Line, asset: Asset) -> bytes:
    body, stack = read.open_blob(line.services, asset.blob, None)
    with stack:
        return body.read()


def states(line: Line) -> set[str]:
    query = "SELECT DISTINCT state FROM replica"
    return {row[0] for row in line.services.metadata.database.read(lambda one: one.exec_driver_sql(query).all())}


def brought(line: Line, number: int) -> Asset:
    return line.bring(f"/bare/{number}.jpg", PICTURES[number])


def mark_as(line: Line, marker: Marker | None) -> ObjectStore:
    store = bare(line.services.default_store)
    store.establish()
    store.delete([MARKER])
    if marker is not None:
        mark(store, marker)
    return store
