"""Which homes move, as far as rules, assets and the blob's other homes say; without a database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.errors import Misconfigured
from core.model import BlobFacts, Replica, StoreState
from core.sections import Demotion, Placement
from core.settings import Settings
from metadata.blobs.collection import Held
from metadata.blobs.demotion import Home, Move
from metadata.blobs.references import Reference
from pipeline.rules.demotion import Demotions
from pipeline.rules.placement import Placements
from storage.registry import options_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MAIN_TO_FAR = {"from": "main", "to": "far"}


def demotions(
    *rules: Mapping[str, Any],
    placement: tuple[Placement, ...] = (),
    states: Mapping[str, StoreState] | None = None,
    **options: Mapping[str, Any],
) -> Demotions:
    tiers = {"fast": "hot", "main": "warm", "far": "cold", "deep": "cold"}
    stores = {name: {"kind": "memory", "tier": tier, **options.get(name, {})} for name, tier in tiers.items()}
    given = tuple(Demotion.model_validate(rule) for rule in rules)
    settings = Settings(home=Path("/nowhere"), stores=stores, placement=placement, demotion=given)
    return Demotions.parse(settings, Placements.parse(settings, options_of(settings), lambda: states or {}))


def home(days: float = 100, read: float | None = None, place: str = "main", others: tuple[Held, ...] = ()) -> Home:
    facts = BlobFacts(bytes(32), 1000, "image/jpeg")
    stored = NOW - timedelta(days=days)
    return Home(Replica(facts, "main", 1), place, stored, NOW - timedelta(days=days if read is None else read), others)


def asset(path: str = "/a/b.jpg", days: float = 100, *, variant: bool = False) -> Reference:
    return Reference(path, variant, NOW - timedelta(days=days))


@pytest.mark.parametrize(
    ("rule", "held", "assets", "moves"),
    [
        ({}, home(), [asset()], True),
        ({}, home(), [], False),
        ({"match": "/a/**"}, home(), [asset()], True),
        ({"match": "/b/**"}, home(), [asset()], False),
        ({"match": "/a/**"}, home(), [asset(), asset("/c.jpg")], False),
        ({"kind": "original"}, home(), [asset()], True),
        ({"kind": "original"}, home(), [asset(variant=True)], False),
        ({"kind": "variant"}, home(), [asset(variant=True)], True),
        ({"kind": "variant"}, home(), [asset(variant=True), asset()], False),
        ({"media_type": "image/j*"}, home(), [asset()], True),
        ({"media_type": "image/p*"}, home(), [asset()], False),
        ({"min_bytes": 1000, "max_bytes": 1000}, home(), [asset()], True),
        ({"min_bytes": 1001}, home(), [asset()], False),
        ({"max_bytes": 999}, home(), [asset()], False),
        ({"older_than_days": 99}, home(), [asset()], True),
        ({"older_than_days": 101}, home(), [asset()], False),
        ({"older_than_days": 99}, home(), [asset(), asset("/young.jpg", days=1)], False),
        ({"older_than_days": 99}, home(days=1), [asset(variant=True)], False),
        ({"unread_days": 99}, home(), [asset()], True),
        ({"unread_days": 30}, home(read=29), [asset()], False),
        ({"unread_days": 30}, home(read=31), [asset()], True),
        ({"pinned": ["/a/**"]}, home(), [asset()], False),
        ({"pinned": ["/brand/**"]}, home(), [asset()], True),
        ({"pinned": ["/brand/**"]}, home(), [asset(), asset("/brand/logo.jpg")], False),
    ],
)
def test_what_a_rule_moves(rule: dict[str, Any], held: Home, assets: list[Reference], moves: bool) -> None:
    chosen = demotions({**MAIN_TO_FAR, **rule}).choose(held, iter(assets), NOW)
    assert chosen == (Move(1, "far", "main") if moves else None)


def test_the_first_rule_that_fits_all_assets_decides() -> None:
    rules = demotions(
        {"from": "fast", "to": "main"},
        {"from": "main", "to": "far", "match": "/a/**"},
        {"from": "main", "to": "deep", "pinned": ["/c/**"]},
    )
    assert rules.choose(home(), iter([asset()]), NOW) == Move(2, "far", "main")
    assert rules.choose(home(), iter([asset(), asset("/b.jpg")]), NOW) == Move(3, "deep", "main")
    assert rules.choose(home(), iter([asset(), asset("/c/d.jpg")]), NOW) is None
    assert rules.sources() == ["fast", "main"]


def test_assets_that_want_the_bytes_elsewhere_have_no_say() -> None:
    rules = demotions({**MAIN_TO_FAR, "pinned": ["/hot/**"]}, placement=(Placement(match="/hot/**", store="fast"),))
    assert rules.choose(home(), iter([asset("/hot/a.jpg"), asset()]), NOW) == Move(1, "far", "main")
    # ... unless nobody wants it here: after a change of the placement rules this may be the only copy there is.
    assert rules.choose(home(), iter([asset("/hot/a.jpg")]), NOW) is None
    assert rules.choose(home(), iter([asset("/hot/a.jpg"), asset("/hot/b.jpg")]), NOW) is None


def test_two_wanted_copies_never_become_one() -> None:
    twice = (Placement(match="/safe/**", store="main", replicas=("far",)),)
    rules = demotions(MAIN_TO_FAR, {"from": "main", "to": "deep", "match": "/safe/**"}, placement=twice)
    there = (Held("far", "far", True),)
    assert rules.choose(home(others=there), iter([asset("/safe/a.jpg")]), NOW) == Move(2, "deep", "main")
    # Two assets that want one copy each may have the same.
    apart = (Placement(match="/far/**", store="far"),)
    rules = demotions(MAIN_TO_FAR, placement=apart)
    assert rules.choose(home(others=there), iter([asset(), asset("/far/a.jpg")]), NOW) == Move(1, "far", "main")
    # What stands for another store there keeps that place.
    assert rules.choose(home(others=(Held("far", "fast", True),)), iter([asset()]), NOW) is None
    assert rules.choose(home(others=(Held("far", "main", False),)), iter([asset()]), NOW) == Move(1, "far", "main")


def test_what_stands_for_a_store_goes_on_standing_for_it() -> None:
    placement = (Placement(match="/a/**", store="fast"), Placement(match="/b/**", store="main"))
    rules = demotions(MAIN_TO_FAR, placement=placement)
    moved = home(place="fast")
    assert rules.choose(moved, iter([asset()]), NOW) == Move(1, "far", "fast")
    assert rules.choose(moved, iter([asset("/b/c.jpg")]), NOW) == Move(1, "far", "main")
    assert rules.choose(moved, iter([asset(), asset("/b/c.jpg")]), NOW) is None, "it serves two"


def test_a_rule_rests_while_one_of_its_stores_is_not_active() -> None:
    for name in ("main", "far"):
        for state in ("draining", "read-only"):
            rules = demotions(MAIN_TO_FAR, states={name: StoreState(name, state, "deep")})
            assert rules.choose(home(), iter([asset()]), NOW) is None
            assert rules.of("main") == []
    assert demotions(MAIN_TO_FAR, states={"main": StoreState("main", "active", None)}).of("main") != []


@pytest.mark.parametrize(
    ("rules", "options", "fault"),
    [
        ([{"from": "nowhere", "to": "far"}], {}, "demotion 1: no store is called 'nowhere'"),
        ([MAIN_TO_FAR, {"from": "main", "to": "gone"}], {}, "demotion 2: no store is called 'gone'"),
        ([{"from": "main", "to": "main"}], {}, "demotion 1: from and to are both 'main'"),
        ([{"from": "main", "to": "fast"}], {}, "'fast' is hot, hotter than 'main', which is warm"),
        ([MAIN_TO_FAR], {"far": {"state": "read-only"}}, "'far' is read-only, and takes nothing new"),
        ([{"from": "far", "to": "deep"}, {"from": "deep", "to": "far"}], {}, "circle: .*far"),
    ],
)
def test_rules_that_cannot_work_are_refused_at_start(
    rules: list[dict[str, Any]], options: dict[str, dict[str, Any]], fault: str
) -> None:
    with pytest.raises(Misconfigured, match=fault):
        demotions(*rules, **options)
