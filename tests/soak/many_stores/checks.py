"""What must hold once everything has come to rest: clients, rows and stores against each other, each way."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Collection, Iterator

import httpx
import psycopg2

from tests.soak.many_stores.installation import CATALOGUE, MARKER, STORES, Installation, places_of
from tests.soak.many_stores.load import Load, Sent

REST_SECONDS = 300.0
NOTED_SECONDS = 5.0
"""After which what was read is written down."""

UNFINISHED = {
    "replicas that are not healthy": "SELECT count(*) FROM replica WHERE state <> 'healthy'",
    "uploads that are not recorded": "SELECT count(*) FROM upload WHERE state <> 'recorded'",
    "variants that are asked for and pending": "SELECT count(*) FROM variant v WHERE state = 'pending' AND EXISTS"
    " (SELECT 1 FROM asset_variant a WHERE a.variant_id = v.id)",
    "garbage": "SELECT count(*) FROM garbage",
    "blobs that are due": "SELECT count(*) FROM blob WHERE gc_after IS NOT NULL",
    "jobs": "SELECT count(*) FROM job WHERE finished_at IS NULL",
}


def at_rest(found: Installation, seconds: float = REST_SECONDS) -> None:
    """
    Raises:
        AssertionError: with what is unfinished still.
    """
    left: dict[str, int] = {}

    def done() -> bool:
        left.clear()
        with contextlib.suppress(psycopg2.OperationalError):
            left.update({what: count for what, query in UNFINISHED.items() if (count := found.stack.sql(query)[0][0])})
            staged = sum(1 for _ in (found.stack.home / "staging" / "accepted").iterdir())
            return not left and not staged
        return False

    try:
        found.stack.until(done, seconds, "everything is finished")
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from None


def violations(found: Installation, load: Load) -> list[str]:
    """Every broken promise as a sentence. Reading makes copies in hot stores, and others make room for them: rows and
    stores are compared when that is over, and with the workers stopped."""
    kept, deleted = load.among("alive"), load.among("deleted")
    said = [
        *(f"a client: {line}" for line in load.wrong),
        *(f"neither kept nor deleted: {one.address}" for one in load.sent if one not in {*kept, *deleted}),
        *_kept(found, kept),
        *_failed(found),
    ]
    time.sleep(NOTED_SECONDS)
    at_rest(found)
    with found.workers_stopped():
        return [*said, *_deleted(found, deleted, {one.told.sha256 for one in kept}), *_rows_against_stores(found)]


def _kept(found: Installation, kept: Collection[Sent]) -> Iterator[str]:
    """Every accepted asset that nobody deleted reads back, its variants too."""
    recorded = {str(row[0]): row[1] for row in found.stack.sql("SELECT id::text, encode(blob, 'hex') FROM asset")}
    with httpx.Client(base_url=found.stack.url, timeout=30) as client:
        for one in kept:
            if recorded.pop(str(one.told.asset_id), None) != one.told.sha256:
                yield f"{one.address}: recorded with other bytes, or not at all"
            answer = client.get(f"{one.address}/content")
            if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != one.told.sha256:
                yield f"{one.address}: answers {answer.status_code}, and not with its bytes"
            for variant in client.get(f"{one.address}/info").json()["variants"]:
                if variant["state"] != "ready":
                    yield f"{one.address}: a variant is {variant['state']}"
                elif variant["profile"]:
                    content = client.get(f"{one.address}/content?profile={variant['profile']}").content
                    if hashlib.sha256(content).hexdigest() != variant["sha256"]:
                        yield f"{one.address}: {variant['profile']} does not read back"
    yield from (f"the asset {one} is there, and nobody sent it or it was deleted" for one in recorded)


def _deleted(found: Installation, deleted: Collection[Sent], living: Collection[str]) -> Iterator[str]:
    blobs = {sha256 for (sha256,) in found.stack.sql("SELECT encode(sha256, 'hex') FROM blob")}
    blobs |= {sha256 for (sha256,) in found.stack.sql("SELECT encode(blob, 'hex') FROM replica")}
    stored = {key.partition(".")[0] for store in STORES for key in found.holdings(store)}
    with httpx.Client(base_url=found.stack.url, timeout=30) as client:
        for one in deleted:
            if (status := client.get(f"{one.address}/content").status_code) != 404:
                yield f"{one.address}: deleted, and answers {status}"
            if one.told.sha256 in living:
                continue
            if one.told.sha256 in blobs:
                yield f"{one.address}: deleted, and a row keeps its bytes"
            if one.told.sha256 in stored:
                yield f"{one.address}: deleted, and a store holds its bytes"


def _failed(found: Installation) -> Iterator[str]:
    for kind, detail in found.stack.sql("SELECT kind, detail FROM failure"):
        yield f"failed: {kind}: {detail}"
    for job, error in found.stack.sql("SELECT id::text, error FROM job WHERE state IN ('failed', 'cancelled')"):
        yield f"the job {job} did not end well: {error}"
    for path in (found.stack.home / "staging" / "quarantine").iterdir():
        yield f"in quarantine: {path.name}"


def _rows_against_stores(found: Installation) -> Iterator[str]:
    """Every healthy replica is in its store with its bytes, and every object has its row."""
    rows = found.stack.sql(
        "SELECT store, encode(blob, 'hex'), generation, size, state FROM replica JOIN blob ON sha256 = blob"
    )
    holdings = {store: found.holdings(store) for store in STORES}
    for store, sha256, generation, size, state in rows:
        key = f"{sha256}.{generation}"
        held = holdings[store].pop(key, None)
        if state != "healthy":
            yield f"{key} in {store} is {state}"
        elif held is None or held.size != size or hashlib.sha256(found.read(store, key)).hexdigest() != sha256:
            yield f"{key} is said to be in {store} and is not, or with other bytes"
    for store, left in holdings.items():
        for key in left:
            if key != MARKER and not key.startswith(CATALOGUE):
                yield f"{key} is in {store}, and no row names it"


def misplaced(found: Installation, folder: str) -> list[str]:
    """Blobs that assets of paths like `/plain/<folder>/1` hold, and that do not lie exactly where the rules say. Copies
    for faster reading do not count."""
    held: dict[str, set[str]] = {}
    homes = "SELECT store, encode(blob, 'hex') FROM replica WHERE state = 'healthy' AND promoted_at IS NULL"
    for store, sha256 in found.stack.sql(homes):
        held.setdefault(sha256, set()).add(store)
    return [
        f"{sha256} lies in {sorted(held.get(sha256, ()))} and belongs into {sorted(stores)}"
        for sha256, stores in _places(found, folder).items()
        if held.get(sha256, set()) != stores
    ]


def _places(found: Installation, folder: str) -> dict[str, set[str]]:
    rows = found.stack.sql(
        "SELECT path_text, encode(sha256, 'hex'), size, false FROM asset JOIN blob ON sha256 = asset.blob"
        " UNION ALL SELECT path_text, encode(sha256, 'hex'), size, true FROM asset a"
        " JOIN asset_variant av ON av.asset_id = a.id JOIN variant v ON v.id = av.variant_id"
        " JOIN blob b ON b.sha256 = v.blob"
    )
    places: dict[str, set[str]] = {}
    for path, sha256, size, variant in rows:
        if path.split("/")[2] == folder:
            places.setdefault(sha256, set()).update(places_of(path, size, variant=variant))
    return places
