"""Parameters, and the recipes they come to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadRequest
from core.model import ImageFacts
from core.sections import Variants
from imaging.operations import OPERATIONS
from imaging.operations.geometry import part
from imaging.recipe import FORMATS, Parameters, Recipe, resolve

LIMITS = Variants()
PHOTO = ImageFacts("image/jpeg", 1600, 1200, frames=1)

sides = st.one_of(st.none(), st.integers(1, 8192))
sources = st.builds(
    ImageFacts,
    media_type=st.sampled_from(["image/jpeg", "image/png", "image/gif", "image/tiff", "image/webp", "image/avif"]),
    width=st.integers(1, 70_000),
    height=st.integers(1, 70_000),
    frames=st.one_of(st.none(), st.integers(1, 500)),
    has_alpha=st.booleans(),
)
asked = st.builds(
    Parameters,
    w=sides,
    h=sides,
    fit=st.one_of(st.none(), st.sampled_from(list(OPERATIONS))),
    format=st.one_of(st.none(), st.sampled_from(list(FORMATS))),
    q=st.one_of(st.none(), st.integers(1, 100)),
    enlarge=st.one_of(st.none(), st.booleans()),
)


def of(source: ImageFacts = PHOTO, /, **parameters: Any) -> Recipe:
    return resolve(Parameters.parse(parameters), source, LIMITS)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"width": "4"}, "width"),
        ({"w": "0"}, "w"),
        ({"w": "-1"}, "w"),
        ({"w": "4.5"}, "w"),
        ({"w": "٣"}, "w"),
        ({"w": ""}, "w"),
        ({"w": True}, "w"),
        ({"w": "9" * 5000}, "w"),
        ({"h": "1e3"}, "h"),
        ({"fit": "cover"}, "fit"),
        ({"fit": ""}, "fit"),
        ({"format": "jpeg"}, "format"),
        ({"q": "101"}, "q"),
        ({"q": 0}, "q"),
        ({"enlarge": "yes"}, "enlarge"),
        ({"enlarge": 1}, "enlarge"),
        ({"fit": 3}, "fit"),
    ],
)
def test_bad_values_are_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        Parameters.parse(given)


def test_text_and_values_mean_the_same() -> None:
    text = {"w": "4", "h": "5", "fit": "crop", "format": "webp", "q": "6", "enlarge": "true"}
    values = {"w": 4, "h": 5, "fit": "crop", "format": "webp", "q": 6, "enlarge": True}
    assert Parameters.parse(text) == Parameters.parse(values) == Parameters(4, 5, "crop", "webp", 6, True)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"fit": "fit"}, {"enlarge": True}, {"w": 9000}, {"h": 9000}, {"w": 8000, "h": 8000, "fit": "fill"}]
    + [{"w": 4, "fit": fit} for fit in ("fill", "stretch", "crop")]
    + [{"h": 4, "fit": fit} for fit in ("fill", "stretch", "crop")],
)
def test_what_no_picture_can_satisfy_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Parameters.parse(parameters).checked(LIMITS)


def test_single_parameters_win_over_a_profile() -> None:
    profile = Parameters.parse({"w": 400, "format": "webp", "enlarge": True})
    assert profile.override(Parameters.parse({"w": 200, "enlarge": False})) == Parameters(
        w=200, format="webp", enlarge=False
    )


@pytest.mark.parametrize(
    ("parameters", "size", "fit"),
    [
        ({"w": 400}, (400, 300), "fit"),
        ({"h": 300}, (400, 300), "fit"),
        ({"w": 400, "h": 400}, (400, 300), "fit"),
        ({"w": 3200}, (1600, 1200), "fit"),
        ({"w": 3200, "enlarge": True}, (3200, 2400), "fit"),
        ({"format": "webp"}, (1600, 1200), "fit"),
        ({"w": 400, "h": 400, "fit": "fill"}, (400, 400), "fill"),
        ({"w": 3000, "h": 3000, "fit": "fill"}, (3000, 3000), "fill"),
        ({"w": 400, "h": 400, "fit": "stretch"}, (400, 400), "stretch"),
        ({"w": 3000, "h": 100, "fit": "stretch"}, (3000, 100), "stretch"),
        ({"w": 400, "h": 400, "fit": "crop"}, (400, 400), "crop"),
        ({"w": 2400, "h": 2400, "fit": "crop"}, (1200, 1200), "crop"),
        ({"w": 2400, "h": 2400, "fit": "crop", "enlarge": True}, (2400, 2400), "crop"),
        # The box has the source's aspect: nothing is cut or bent, so these are one variant with plain `w=400`.
        ({"w": 400, "h": 300, "fit": "fill"}, (400, 300), "fit"),
        ({"w": 400, "h": 300, "fit": "crop"}, (400, 300), "fit"),
        ({"w": 400, "h": 300, "fit": "stretch"}, (400, 300), "fit"),
    ],
)
def test_sizes(parameters: dict[str, Any], size: tuple[int, int], fit: str) -> None:
    recipe = of(**parameters)
    assert (recipe.size, recipe.fit) == (size, fit)


def test_equal_results_share_one_recipe() -> None:
    same = [{"w": 400}, {"w": 400, "fit": "fit"}, {"w": 400, "h": 400}, {"w": 400, "q": 80, "format": "jpg"}]
    assert len({of(**parameters).hash for parameters in same}) == 1
    assert of(w=400, format="png", q=10) == of(w=400, format="png")
    assert of(w=400).hash != of(w=401).hash


@pytest.mark.parametrize(
    ("media_type", "alpha", "expected"),
    [
        ("image/jpeg", False, "jpg"),
        ("image/webp", True, "webp"),
        ("image/tiff", False, "jpg"),
        ("image/tiff", True, "png"),
        ("image/gif", False, "gif"),
        ("image/avif", False, "avif"),
    ],
)
def test_the_format_is_the_sources_own(media_type: str, alpha: bool, expected: str) -> None:
    assert of(ImageFacts(media_type, 10, 10, 1, has_alpha=alpha), w=5).format == expected


def test_frames_are_kept_where_both_formats_have_them() -> None:
    gif = ImageFacts("image/gif", 100, 100, frames=10)
    assert of(gif, w=50).animated
    assert of(gif, w=50, format="webp").animated
    assert not of(gif, w=50, format="jpg").animated
    assert not of(ImageFacts("image/tiff", 100, 100, frames=10), w=50, format="gif").animated
    assert not of(ImageFacts("image/gif", 2000, 2000, frames=11), format="gif").animated  # 44 million pixels


@given(asked, sources)
def test_a_recipe_keeps_every_rule(parameters: Parameters, source: ImageFacts) -> None:
    try:
        parameters.checked(LIMITS)
    except BadRequest:
        return
    recipe = resolve(parameters, source, LIMITS)  # what was checked never fails because of a source
    width, height = recipe.size
    assert 1 <= width <= LIMITS.max_side
    assert 1 <= height <= LIMITS.max_side
    assert width * height <= LIMITS.max_pixels
    asked_for = parameters.fit or "fit"
    if asked_for in {"fit", "crop"}:
        assert parameters.w is None or width <= parameters.w
        assert parameters.h is None or height <= parameters.h
        if not parameters.enlarge:
            assert width <= source.width
            assert height <= source.height
    else:
        assert recipe.size == (parameters.w, parameters.h)
    scaled = OPERATIONS[recipe.fit].scaled((source.width, source.height), recipe.size)
    assert scaled == recipe.size or (scaled[0] <= source.width and scaled[1] <= source.height)
    cut = part(scaled, recipe.size)
    assert cut == recipe.size or scaled == (source.width, source.height)  # enlarged from as much as there is
    assert cut[0] <= scaled[0]
    assert cut[1] <= scaled[1]


@given(asked, sources)
def test_a_recipe_survives_json(parameters: Parameters, source: ImageFacts) -> None:
    try:
        recipe = resolve(parameters, source, LIMITS)
    except BadRequest:
        return
    again = Recipe.from_canonical(json.loads(json.dumps(recipe.canonical)))
    assert again == recipe
    assert again.hash == recipe.hash


def test_the_hash_of_a_recipe_never_changes() -> None:
    """It names rows and objects that exist already: a change here needs a new version."""
    assert of(w=400).canonical == {
        "v": 1,
        "w": 400,
        "h": 300,
        "fit": "fit",
        "format": "jpg",
        "q": 80,
        "animated": False,
    }
    assert of(w=400).hash.hex() == "087c0f4c3da71eb71d838984c24f0f72b55117d012ca90c4c64d9d557b9dfbb3"


@pytest.mark.parametrize("mapping", [{}, {"v": 2}, {"v": 1, "w": 4}, {**of(w=4).canonical, "x": 1}])
def test_other_mappings_are_no_recipes(mapping: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Recipe.from_canonical(mapping)
