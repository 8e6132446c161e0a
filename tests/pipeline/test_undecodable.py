"""A source that cannot be decoded is one failure and one decode, however many variants are asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.model import Asset, Variant, VariantState
from imaging.recipe import Parameters, resolve
from metadata.paths import AssetPath
from pipeline import failures, maintenance
from pipeline.assets import deletion
from pipeline.variants import derive
from tests.pictures import animated, encoded, photo
from tests.pipeline.line import Line

HALF = encoded(photo(), "PNG")[:-4000]


def with_a_broken_end(gif: bytes) -> bytes:
    """Break the codes of the last frame, so that they make no sense."""
    broken = bytearray(gif)
    descriptor = gif.rindex(b"\x21\xf9\x04") + 8
    flags = gif[descriptor + 9]
    codes = descriptor + 12 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    broken[codes : codes + 200] = bytes(one ^ 0xFF for one in gif[codes : codes + 200])
    return bytes(broken)


def ask(line: Line, asset: Asset, **parameters: object) -> Variant:
    recipe = resolve(Parameters.parse(parameters), asset.image, line.settings.variants)  # type: ignore[arg-type]
    want = line.services.profiles.want(recipe, None)
    return line.services.metadata.variants.want(asset.id, asset.blob.sha256, want)


def shown(line: Line) -> list[str]:
    return [failure.subject for failure in line.services.metadata.failures.page(None, 100).items]


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many variants each rendering begins with."""
    counted: list[int] = []
    real = derive.render

    def counting(fd: int, size: int, recipes: list[object], directory: object) -> object:
        counted.append(len(recipes))
        return real(fd, size, recipes, directory)  # type: ignore[arg-type]

    monkeypatch.setattr(derive, "render", counting)
    return counted


def test_eighty_wishes_for_half_a_picture_are_one_failure(line: Line, decodes: list[int]) -> None:
    asset = line.bring("/bare/a.png", HALF)
    states = set()
    for width in range(10, 90):
        states.add(ask(line, asset, w=width).state)
        line.derive(asset.blob.sha256)
    assert states == {VariantState.PENDING, VariantState.FAILED}
    assert decodes == [1], "it was decoded again"
    assert shown(line) == ["source"]
    last = ask(line, asset, w=5, format="webp")
    assert (last.state, last.failure and last.failure.kind) == (VariantState.FAILED, "bad-image")


def test_what_was_asked_for_before_fails_with_it(line: Line, decodes: list[int]) -> None:
    asset = line.bring("/bare/a.png", HALF)
    wanted = [ask(line, asset, w=width) for width in range(10, 30)]
    [held] = line.services.metadata.variants.lease(asset.blob.sha256, timedelta(30), one=wanted[3].id)
    line.derive(asset.blob.sha256)
    assert {one.state for one in line.services.metadata.variants.of_asset(asset.id)} == {VariantState.FAILED}
    assert decodes == [19]
    derive.work(line.services, [held])  # another holder comes to the same
    assert shown(line) == ["source"]


@pytest.mark.parametrize("wish", ["retry", "discard"])
def test_a_wish_for_the_one_failure_is_one_for_all_that_failed(line: Line, wish: failures.Wish) -> None:
    asset = line.bring("/bare/a.png", HALF)
    for width in (10, 11, 12):
        ask(line, asset, w=width)
        line.derive(asset.blob.sha256)
    [failure] = line.services.metadata.failures.page(None, 9).items
    assert failures.wish(line.services, failure.id, wish) is None
    assert shown(line) == []
    left = line.services.metadata.variants.of_asset(asset.id)
    assert [one.state for one in left] == ([VariantState.PENDING] * 3 if wish == "retry" else [])
    assert ask(line, asset, w=13).state is VariantState.PENDING
    line.derive(asset.blob.sha256)
    assert shown(line) == ["source"]


def test_an_animation_that_breaks_off_still_shows_its_first_frame(line: Line, decodes: list[int]) -> None:
    asset = line.bring("/bare/a.gif", with_a_broken_end(animated("GIF")))
    for width in range(10, 20):
        assert ask(line, asset, w=width).state is (VariantState.PENDING if width == 10 else VariantState.FAILED)
        line.derive(asset.blob.sha256)
    assert (shown(line), decodes) == (["source"], [1])
    still = ask(line, asset, w=20, format="jpg")
    line.derive(asset.blob.sha256)
    found = line.services.metadata.variants.find(asset.id, still.recipe_hash)
    assert found is not None
    assert found.state is VariantState.READY


def test_another_asset_with_the_same_bytes_fails_at_once_and_is_stored(line: Line, decodes: list[int]) -> None:
    line.bring("/a.png", HALF)
    again = line.bring("/b.png", HALF)
    assert {one.state for one in line.variants(again).values()} == {VariantState.FAILED}
    assert line.holds(HALF)
    assert (len(decodes), shown(line)) == (1, ["source"])


def test_the_failure_goes_with_the_last_of_its_assets(line: Line) -> None:
    asset = line.bring("/bare/a.png", HALF)
    ask(line, asset, w=9)
    line.derive(asset.blob.sha256)
    assert shown(line) == ["source"]
    deletion.delete(line.services, AssetPath.from_text(asset.path), asset.entry, purge=True)
    maintenance.collect_garbage(line.services)
    assert shown(line) == []
