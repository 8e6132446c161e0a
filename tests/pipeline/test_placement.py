"""Which stores hold what: rules, replicas in the background, reading past a bad one, and replicas without a reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.errors import Misconfigured, StoreUnavailable
from core.model import Asset, BlobFacts, Replica
from core.sections import Placement
from core.settings import Settings
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.replicas import repair, sources
from pipeline.rules.placement import Placements, Plan
from pipeline.uploads.ingest import Outcome
from storage.registry import options_of
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(320, 240), "JPEG")


def stores(home: Path, **options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    named = {name: {"kind": "filesystem", "root": str(home / name)} for name in ("main", "fast", "far")}
    return {name: {**given, **options.get(name, {})} for name, given in named.items()}


def lined(home: Path, database_url: str, *rules: Placement, **options: dict[str, Any]) -> Line:
    return Line(home, database_url, stores=stores(home, **options), placement=rules)


def held_by(line: Line, blob: BlobFacts) -> list[str]:
    """The stores that really have the bytes of a healthy replica."""
    found = []
    for replica in line.services.metadata.blobs.replicas(blob.sha256):
        with line.services.store(replica.store).open(replica.key) as body:
            assert len(body.read()) == blob.size
        found.append(replica.store)
    return sorted(found)


@pytest.fixture
def database(database_url: str) -> str:
    return database_url


@pytest.fixture
def line(tmp_path: Path, database: str) -> Iterator[Line]:
    made = lined(
        tmp_path,
        database,
        Placement(match="/small/**", max_bytes=20, store="fast"),
        Placement(kind="variant", store="fast"),
        Placement(match="/safe/**", store="main", replicas=("far",)),
        Placement(match="/soon/**", store="main", replicas=("far",), replication="background"),
        far={"tier": "cold"},
        fast={"tier": "hot"},
    )
    yield made
    made.close()


def test_a_rule_says_where_bytes_go_and_the_default_takes_the_rest(line: Line) -> None:
    plain, safe = line.bring("/plain/a.jpg", PICTURE), line.bring("/safe/b.jpg", encoded(photo(300, 200), "JPEG"))
    assert held_by(line, plain.blob) == ["main"]
    assert held_by(line, safe.blob) == ["far", "main"]
    for asset in (plain, safe):
        variants = [one.blob for one in line.variants(asset).values()]
        assert len(variants) == 2
        assert all(blob is not None and held_by(line, blob) == ["fast"] for blob in variants)


@pytest.mark.parametrize(
    ("rule", "path", "blob", "variant", "fits"),
    [
        ({}, "/any", {}, False, True),
        ({"match": "/a/**"}, "/a/b/c", {}, False, True),
        ({"match": "/a/**"}, "/ab", {}, False, False),
        ({"kind": "original"}, "/any", {}, False, True),
        ({"kind": "original"}, "/any", {}, True, False),
        ({"kind": "variant"}, "/any", {}, True, True),
        ({"media_type": "image/png"}, "/any", {"media_type": "image/png"}, False, True),
        ({"media_type": "image/p*"}, "/any", {"media_type": "image/jpeg"}, False, False),
        ({"min_bytes": 100}, "/any", {"size": 100}, False, True),
        ({"min_bytes": 100}, "/any", {"size": 99}, False, False),
        ({"max_bytes": 100}, "/any", {"size": 100}, False, True),
        ({"max_bytes": 100}, "/any", {"size": 101}, False, False),
    ],
)
def test_what_a_rule_fits(
    tmp_path: Path, rule: dict[str, Any], path: str, blob: dict[str, Any], variant: bool, fits: bool
) -> None:
    settings = Settings(home=tmp_path, stores=stores(tmp_path), placement=(Placement(store="fast", **rule),))
    facts = BlobFacts(**{"sha256": bytes(32), "size": 10, "media_type": "image/jpeg", **blob})
    plan = Placements.parse(settings, options_of(settings)).plan(path, facts, variant=variant)
    assert plan == Plan(("fast",) if fits else ("main",))


@pytest.mark.parametrize(
    ("rules", "options", "fault"),
    [
        ([{"store": "nowhere"}], {}, "placement 1: no store is called 'nowhere'"),
        ([{"store": "main"}, {"store": "main", "replicas": ("gone",)}], {}, "placement 2: no store is called 'gone'"),
        ([{"store": "main", "replicas": ("main",)}], {}, "named twice"),
        ([], {"main": {"state": "draining"}}, "default_store: 'main' is draining"),
    ],
)
def test_rules_that_cannot_work_are_refused_at_start(
    tmp_path: Path, rules: list[dict[str, Any]], options: dict[str, dict[str, Any]], fault: str
) -> None:
    given = tuple(Placement(**rule) for rule in rules)
    settings = Settings(home=tmp_path, stores=stores(tmp_path, **options), placement=given)
    with pytest.raises(Misconfigured, match=fault):
        Placements.parse(settings, options_of(settings))


@pytest.mark.parametrize(
    ("key", "named"),
    [("default_store", {"default_store": "ice"}), ("catalogue.store", {"catalogue": {"store": "ice"}})],
)
def test_the_catalogue_does_not_lie_in_an_archive(tmp_path: Path, key: str, named: dict[str, Any]) -> None:
    ice = {"kind": "s3", "bucket": "ice", "region": "eu-central-1", "storage_class": "GLACIER"}
    there = {**stores(tmp_path), "ice": ice}
    settings = Settings.model_validate({"home": tmp_path, "stores": there, **named})
    with pytest.raises(Misconfigured, match=f"{key}: 'ice' writes into an archive"):
        Placements.parse(settings, options_of(settings))


def test_the_hottest_is_read_first_then_by_priority_then_the_one_checked_last(tmp_path: Path) -> None:
    facts = BlobFacts(bytes(32), 10, "image/jpeg")
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    replicas = [Replica(facts, name, 1, early) for name in ("main", "fast", "far", "gone")]

    def order(**options: dict[str, Any]) -> list[str]:
        settings = Settings(home=tmp_path, stores=stores(tmp_path, **options))
        return [one.store for one in Placements.parse(settings, options_of(settings)).in_reading_order(replicas)]

    assert order(main={"tier": "cold"}, far={"tier": "hot"}) == ["far", "fast", "main", "gone"]
    assert order(main={"priority": 1}, fast={"priority": 2}) == ["far", "main", "fast", "gone"]
    replicas[1] = Replica(facts, "fast", 1, late)
    assert order()[0] == "fast"
    replicas[1] = Replica(facts, "fast", 1, None)
    assert order() == ["far", "main", "fast", "gone"]


@pytest.mark.parametrize("state", ["draining", "read-only"])
def test_a_store_that_is_not_active_is_read_and_takes_nothing_new(tmp_path: Path, database: str, state: str) -> None:
    line = lined(tmp_path, database, Placement(store="fast"))
    before = line.bring("/a.jpg", PICTURE)
    line.close()
    line = lined(tmp_path, database, Placement(store="fast"), fast={"state": state})
    after = line.bring("/b.jpg", encoded(photo(300, 200), "JPEG"))
    assert (held_by(line, before.blob), held_by(line, after.blob)) == (["fast"], ["main"])
    line.close()


def test_a_replica_in_the_background_comes_from_one_that_has_it(line: Line) -> None:
    asset = line.bring("/soon/a.jpg", PICTURE)
    assert held_by(line, asset.blob) == ["main"]
    assert repair.repair(line.services) == 1
    assert held_by(line, asset.blob) == ["far", "main"]
    assert repair.repair(line.services) == 0


def test_equal_bytes_are_sent_only_where_a_rule_lacks_them(line: Line) -> None:
    line.bring("/plain/a.jpg", PICTURE)
    asset = line.bring("/safe/b.jpg", PICTURE)
    assert held_by(line, asset.blob) == ["far", "main"]


def test_a_replica_goes_when_no_assets_rule_names_its_store(line: Line) -> None:
    plain, safe = line.bring("/plain/a.jpg", PICTURE), line.bring("/safe/b.jpg", PICTURE)
    line.collect()
    assert held_by(line, plain.blob) == ["far", "main"]
    delete(line, safe)
    line.collect()
    assert held_by(line, plain.blob) == ["main"]
    assert list(line.services.store("far").scan()) == []


def test_the_last_healthy_replica_stays_whatever_rules_say(tmp_path: Path, database: str) -> None:
    line = lined(tmp_path, database)
    one, other = line.bring("/bare/a.jpg", PICTURE), line.bring("/bare/b.jpg", PICTURE)
    line.close()
    line = lined(tmp_path, database, Placement(store="far", replicas=("fast",), replication="background"))
    delete(line, other)
    line.collect()
    assert held_by(line, one.blob) == ["main"]
    line.close()


def test_a_missing_replica_is_read_past_marked_and_repaired(line: Line) -> None:
    asset = line.bring("/safe/a.jpg", PICTURE)
    first = line.services.placements.in_reading_order(line.services.metadata.blobs.replicas(asset.blob.sha256))[0]
    assert first.store == "main"
    line.services.store("main").delete([first.key])
    assert read(line, asset) == PICTURE
    assert held_by(line, asset.blob) == ["far"]
    assert repair.repair(line.services) == 1
    assert held_by(line, asset.blob) == ["far", "main"]


def test_a_store_that_does_not_answer_costs_its_replicas_nothing(line: Line, tmp_path: Path) -> None:
    asset = line.bring("/safe/a.jpg", PICTURE)
    (tmp_path / "main" / "objects").rename(tmp_path / "away")
    assert read(line, asset) == PICTURE
    (tmp_path / "away").rename(tmp_path / "main" / "objects")
    assert held_by(line, asset.blob) == ["far", "main"]


def test_without_any_readable_replica_the_answer_is_typed(line: Line, tmp_path: Path) -> None:
    asset = line.bring("/plain/a.jpg", PICTURE)
    (tmp_path / "main" / "objects").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable):
        read(line, asset)


def test_a_store_that_the_settings_lost_is_unavailable_and_not_missing(tmp_path: Path, database: str) -> None:
    line = lined(tmp_path, database, Placement(store="fast"))
    asset = line.bring("/bare/a.jpg", PICTURE)
    line.close()
    left = {name: given for name, given in stores(tmp_path).items() if name != "fast"}
    line = Line(tmp_path, database, stores=left)
    with pytest.raises(StoreUnavailable, match="fast"):
        read(line, asset)
    line.close()
    line = lined(tmp_path, database)
    assert read(line, asset) == PICTURE
    line.close()


def test_a_repair_that_fails_is_tried_again(line: Line, tmp_path: Path) -> None:
    asset = line.bring("/soon/a.jpg", PICTURE)
    (tmp_path / "main" / "objects").rename(tmp_path / "away")
    assert repair.repair(line.services) == 0
    (tmp_path / "away").rename(tmp_path / "main" / "objects")
    for _ in range(200):
        if repair.repair(line.services):
            break
    assert held_by(line, asset.blob) == ["far", "main"]


def test_an_upload_waits_for_every_replica_that_is_to_be_there_at_once(line: Line, tmp_path: Path) -> None:
    (tmp_path / "far").write_text("no directory")
    manifest = line.accept("/safe/a.jpg", PICTURE)
    assert line.ingest(manifest.id) is Outcome.AGAIN
    assert line.services.metadata.assets.by_id(manifest.asset_id) is None


def delete(line: Line, asset: Asset) -> None:
    deletion.delete(line.services, AssetPath.from_text(asset.path), asset.entry, purge=False)


def read(line: Line, asset: Asset) -> bytes:
    with sources.stream(line.services, asset.blob.sha256) as body:
        return body.read()
