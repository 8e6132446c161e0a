from __future__ import annotations

import pytest

from core.errors import BadRequest, Misconfigured
from core.model import ImageFacts
from core.sections import PathRule
from core.settings import Settings
from pipeline.rules.profiles import Profiles

IMAGE = ImageFacts("image/jpeg", 800, 600, 1)


def eager(path: str, *rules: tuple[str, tuple[str, ...]]) -> list[str | None]:
    settings = Settings(
        profiles={"a": {"w": 10}, "b": {"w": 20}},
        paths=tuple(PathRule(match=match, eager=names) for match, names in rules),
    )
    return [want.profile for want in Profiles.parse(settings).eager(path, IMAGE)]


@pytest.mark.parametrize(
    ("match", "path", "matches"),
    [
        ("/**", "/x", True),
        ("/**", "/x/y/z", True),
        ("/catalog/**", "/catalog/red.jpg", True),
        ("/catalog/**", "/catalog/shoes/red.jpg", True),
        ("/catalog/**", "/catalog", True),
        ("/catalog/**", "/catalogue/red.jpg", False),
        ("/catalog/*", "/catalog/red.jpg", True),
        ("/catalog/*", "/catalog/shoes/red.jpg", False),
        ("/catalog/*", "/catalog", False),
        ("/*/shoes/**", "/a/shoes/b/c", True),
        ("/**/raw/**", "/a/b/raw/c", True),
        ("/**/raw/**", "/a/b/c", False),
        ("/pictures/*.png", "/pictures/a.png", True),
        ("/pictures/*.png", "/pictures/a.jpg", False),
        ("/pictures/*.png", "/pictures/axpng", False),
        ("/a(b)[c]", "/a(b)[c]", True),
        ("/scho\u0308n/**", "/sch\u00f6n/a", True),
    ],
)
def test_a_rule_matches_whole_segments(match: str, path: str, matches: bool) -> None:
    assert eager(path, (match, ("a",))) == (["a"] if matches else [])


def test_the_first_rule_that_matches_decides() -> None:
    rules = (("/raw/**", ()), ("/catalog/**", ("b", "a")), ("/**", ("a",)))
    assert eager("/raw/x", *rules) == []
    assert eager("/catalog/x", *rules) == ["b", "a"]
    assert eager("/else/x", *rules) == ["a"]
    assert eager("/else/x", *rules[:2]) == []


def test_by_default_everything_gets_a_thumb() -> None:
    [want] = Profiles.parse(Settings()).eager("/x", IMAGE)
    assert (want.profile, want.eager, want.recipe["w"], want.recipe["h"]) == ("thumb", True, 400, 300)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"profiles": {"a": {"width": 4}}}, "profiles.a"),
        ({"profiles": {"a": {"fit": "crop", "w": 4}}}, "profiles.a"),
        ({"profiles": {"a": {}}}, "profiles.a"),
        ({"paths": [{"match": "/x/**", "eager": ["nope"]}]}, "'nope'"),
    ],
)
def test_what_cannot_work_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        Profiles.parse(Settings(**changes))  # type: ignore[arg-type]  # pydantic checks them


def test_an_unknown_profile_is_the_callers_mistake() -> None:
    with pytest.raises(BadRequest, match="thumb"):
        Profiles.parse(Settings()).profile("nope")
