"""What a GET asks PostgreSQL for, what it does not ask twice, and that nothing deleted is shown longer than allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.errors import NotFound, StoreUnavailable
from core.model import Asset, BlobFacts, Details, Variant
from core.sections import Cache
from metadata.paths import AssetPath
from metadata.variants.variants import Variants
from pipeline.assets import deletion, read
from pipeline.installation import await_redis_prefix
from pipeline.lookups import codec
from pipeline.variants.waiting import VariantWaits
from tests.pictures import encoded, photo
from tests.pipeline.line import Line, settings, under_every_lock

PICTURE = encoded(photo(), "JPEG")
PATH = AssetPath.from_text("/a.jpg")


@pytest.fixture
def make(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Line]]:
    """Processes that share a database and a store."""
    made: list[Line] = []

    def make(redis_url: str | None = None, **cache: Any) -> Line:
        stores = {"main": {"kind": "filesystem", "root": str(tmp_path / "store")}}
        home = tmp_path / str(len(made))
        if redis_url is not None:
            await_redis_prefix(settings(home, database_url))  # or it would have a cache of its own
        made.append(Line(home, database_url, stores=stores, redis_url=redis_url, cache=Cache(**cache)))
        return made[-1]

    yield make
    for line in made:
        line.close()


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Callable[[Line, Callable[[], object]], int]:
    """How often PostgreSQL is asked meanwhile."""

    def count(line: Line, act: Callable[[], object]) -> int:
        asked = []
        database = line.services.metadata.database
        with monkeypatch.context() as patch:
            for name in ("read", "run"):
                original = getattr(database, name)
                patch.setattr(
                    database,
                    name,
                    lambda *given, original=original, **named: (asked.append(1), original(*given, **named))[1],
                )
            act()
        return len(asked)

    return count


def get(line: Line, path: AssetPath = PATH, entry: int | None = None, **query: str) -> bytes:
    """As the web process does it."""
    services = line.services
    wish = read.understand(services, read.find(services, path, entry), query)
    waits = VariantWaits(services.metadata.variants.states)
    file, opened = read.open_blob(services, read.blob(services, waits, wish, seconds=0), None)
    with opened:
        return file.read()


def shows(line: Line, entry: int | None = None) -> bool:
    try:
        read.find(line.services, PATH, entry)
    except NotFound:
        return False
    return True


Questions = Callable[[Line, Callable[[], object]], int]


def test_by_default_only_the_asset_itself_is_asked_for_again(make: Callable[..., Line], questions: Questions) -> None:
    line = make()
    line.bring("/a.jpg", PICTURE)
    assert questions(line, lambda: get(line)) == 2
    assert questions(line, lambda: get(line)) == 1
    assert questions(line, lambda: get(line, profile="thumb")) == 3
    assert questions(line, lambda: get(line, profile="thumb")) == 1
    assert get(line) == PICTURE


@pytest.mark.parametrize(
    ("cache", "original", "variant"),
    [
        ({"kind": "none"}, 2, 3),
        ({"ttl_seconds": 0}, 2, 3),
        ({"asset_ttl_seconds": 60}, 0, 0),
        ({"ttl_seconds": 0, "asset_ttl_seconds": 60}, 1, 2),
    ],
)
def test_what_the_settings_save(
    make: Callable[..., Line], questions: Questions, cache: dict[str, Any], original: int, variant: int
) -> None:
    line = make(**cache)
    line.bring("/a.jpg", PICTURE)
    for _ in range(2):
        get(line)
        get(line, profile="thumb")
    assert questions(line, lambda: get(line)) == original
    assert questions(line, lambda: get(line, profile="thumb")) == variant


def test_what_is_settled_is_asked_for_again_after_its_time(make: Callable[..., Line], questions: Questions) -> None:
    line = make(ttl_seconds=1)
    line.bring("/a.jpg", PICTURE)
    get(line)
    time.sleep(1.05)
    assert questions(line, lambda: get(line)) == 2


def test_by_default_what_is_deleted_is_gone_everywhere_at_once(make: Callable[..., Line]) -> None:
    one, other = make(), make()
    one.bring("/a.jpg", PICTURE)
    for line in (one, other):
        assert get(line, profile="thumb")
    deletion.delete(one.services, PATH, 0, purge=False)
    assert not shows(one)
    assert not shows(other)
    assert not shows(other, 0)


def test_a_cached_asset_is_gone_at_once_where_it_was_deleted_and_elsewhere_after_its_time(
    make: Callable[..., Line],
) -> None:
    one, other = make(asset_ttl_seconds=2), make(asset_ttl_seconds=2)
    one.bring("/a.jpg", PICTURE)
    for line in (one, other):
        assert shows(line)
        assert shows(line, 0)
    deletion.delete(one.services, PATH, 0, purge=False)
    deleted = time.monotonic()
    assert not shows(one)
    assert not shows(one, 0)
    assert shows(other) or time.monotonic() - deleted > 1.5
    time.sleep(max(0.0, deleted + 2 - time.monotonic()))
    assert not shows(other)
    assert not shows(other, 0)


def test_through_redis_a_deleted_asset_is_gone_everywhere_at_once(make: Callable[..., Line], redis_url: str) -> None:
    one, other = (make(redis_url, kind="redis", asset_ttl_seconds=60) for _ in range(2))
    one.bring("/a.jpg", PICTURE)
    one.bring("/a.jpg", encoded(photo(50, 40), "PNG"))
    for line in (one, other):
        assert [shows(line, entry) for entry in (None, 0, 1)] == [True] * 3
    deletion.delete(one.services, PATH, 1, purge=False)
    for line in (one, other):
        assert [shows(line, entry) for entry in (0, 1)] == [True, False]
        assert read.find(line.services, PATH, None).entry == 0


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_who_looked_before_the_delete_does_not_bring_it_back(
    make: Callable[..., Line], redis_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    line = make(redis_url, kind=kind, asset_ttl_seconds=60)
    line.bring("/a.jpg", PICTURE)
    assets = line.services.metadata.assets
    look = assets.newest

    def slowly(path: AssetPath) -> Asset | None:
        found = look(path)
        deletion.delete(line.services, PATH, 0, purge=False)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(assets, "newest", slowly)
        assert shows(line), "the answer is as old as the look"
    assert not shows(line)


def test_a_delete_of_unknown_outcome_is_looked_up(make: Callable[..., Line], arm: Callable[..., None]) -> None:
    line = make(asset_ttl_seconds=60)
    line.bring("/a.jpg", PICTURE)
    assert shows(line)
    arm("delete.after-commit", "errno EIO")
    with pytest.raises(OSError, match="Input/output"):
        deletion.delete(line.services, PATH, 0, purge=False)
    assert not shows(line)


def test_that_there_is_nothing_is_not_cached(make: Callable[..., Line]) -> None:
    line = make(asset_ttl_seconds=60)
    assert not shows(line)
    line.bring("/a.jpg", PICTURE)
    assert shows(line)


def test_a_copy_that_was_replaced_is_found_where_it_is_now(make: Callable[..., Line]) -> None:
    line = make()
    asset = line.bring("/a.jpg", PICTURE)
    assert get(line) == PICTURE
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    line.services.default_store.delete([replica.key])
    with pytest.raises(StoreUnavailable):
        get(line)
    line.bring("/b.jpg", PICTURE)  # finds the object missing and puts it again, under another key
    assert get(line) == PICTURE


def test_a_stale_list_of_copies_is_followed_by_a_fresh_one(make: Callable[..., Line]) -> None:
    line, other = make(), make()
    asset = line.bring("/a.jpg", PICTURE)
    assert get(line) == PICTURE
    [replica] = other.services.metadata.blobs.replicas(asset.blob.sha256)
    other.services.default_store.delete([replica.key])
    other.bring("/b.jpg", PICTURE)
    assert get(line) == PICTURE


@under_every_lock
def test_a_reader_beside_all_of_it(line: Line) -> None:
    line.bring("/a.jpg", PICTURE)
    assert get(line) == PICTURE
    assert get(line, profile="thumb") == get(line, entry=0, profile="thumb")
    with pytest.raises(read.NotYet):
        get(line, w="17")
    line.derive(line.services.metadata.variants.due_sources(1)[0])
    assert get(line, w="17")
    deletion.delete(line.services, PATH, 0, purge=True)
    line.collect()
    assert not shows(line)
    assert line.objects() == {}


def test_json_keeps_everything(make: Callable[..., Line]) -> None:
    line = make()
    asset = line.bring("/a.jpg", PICTURE, details=Details("alt ä", {"k": "v"}, ("t", "u")))
    assert codec.asset_from(codec.asset_to(asset)) == asset
    replicas = line.services.metadata.blobs.replicas(asset.blob.sha256)
    assert codec.replicas_from(codec.replicas_to(replicas)) == replicas
    blob = BlobFacts(bytes(range(32)), 5, "image/png")
    assert codec.blob_from(codec.blob_to(blob)) == blob


@pytest.mark.parametrize("text", ["", "x", "null", "1", '[["zz",1,"x"]]', '{"image": 1}', "[[1, 2], 3]"])
def test_what_another_version_wrote_is_asked_for_again(
    make: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    line = make(asset_ttl_seconds=60)
    line.bring("/a.jpg", PICTURE)
    monkeypatch.setattr(line.services.cache, "get", lambda _: text)
    assert get(line) == PICTURE
    assert get(line, profile="thumb")


def test_a_crowd_that_wants_a_missing_variant_asks_for_it_once(
    make: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transactions would queue for one row, each until the one before it is on disk."""
    line = make()
    line.bring("/a.jpg", PICTURE)
    services = line.services
    wish = read.understand(services, read.find(services, PATH, None), {"w": "31"})
    waits = VariantWaits(services.metadata.variants.states)
    asked, want = [], Variants.want

    def slow(variants: Variants, *given: Any) -> Variant:
        asked.append(given)
        time.sleep(0.5)
        return want(variants, *given)

    def ask(_: int) -> None:
        with pytest.raises(read.NotYet):
            read.blob(services, waits, wish, seconds=0)

    monkeypatch.setattr(Variants, "want", slow)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert len(asked) == 1
