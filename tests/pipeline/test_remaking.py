"""A variant of which no good copy is left is rendered again; nothing else is, and nothing of it is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import BytesIO

import pytest
from PIL import Image

from core.errors import StoreUnavailable, Superseded
from core.model import Asset, BlobFacts, LeasedVariant, Variant, VariantState
from metadata.variants.variants import Stored
from pipeline.assets import read
from pipeline.jobs import verification
from pipeline.replicas.quarantine import verdict
from pipeline.replicas.repair import repair
from pipeline.replicas.rerender import make_again
from pipeline.replicas.sources import mark
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line

PICTURE = encoded(photo(), "JPEG")


@pytest.fixture
def asset(line: Line) -> Asset:
    return line.bring("/a.jpg", PICTURE)


def thumb(line: Line, asset: Asset) -> Variant:
    return line.variants(asset)["thumb"]


def output(line: Line, asset: Asset) -> BlobFacts:
    made = thumb(line, asset).blob
    assert made is not None
    return made


def destroy(line: Line, blob: BlobFacts) -> str:
    """The object goes behind our back; returns its key."""
    [replica] = line.services.metadata.blobs.replicas(blob.sha256)
    line.services.store("main").delete([replica.key])
    return replica.key


def lose(line: Line, blob: BlobFacts) -> str:
    """And somebody noticed."""
    [replica] = line.services.metadata.blobs.replicas(blob.sha256)
    key = destroy(line, blob)
    mark(line.services, replica, "missing", "said somebody")
    return key


def bytes_of(line: Line, blob: BlobFacts) -> bytes:
    body, opened = read.open_blob(line.services, blob, None)
    with opened:
        return body.read()


def test_verification_has_a_lost_variant_made_again(line: Line, asset: Asset) -> None:
    old = destroy(line, output(line, asset))
    job = run(line, verification.KIND)
    assert [job.progress[name] for name in ("missing", "repaired", "remade", "failed")] == [1, 0, 1, 0]
    assert verdict(line.services, job).good
    assert thumb(line, asset).state is VariantState.PENDING
    line.derive(asset.blob.sha256)
    assert Image.open(BytesIO(bytes_of(line, output(line, asset)))).width == 40
    [replica] = line.services.metadata.blobs.replicas(output(line, asset).sha256)
    assert replica.key != old
    line.collect()
    assert replica.key in line.objects()
    assert run(line, verification.KIND).progress["missing"] == 0


def test_so_does_repair_in_the_background(line: Line, asset: Asset) -> None:
    lose(line, output(line, asset))
    assert repair(line.services) == 0
    assert thumb(line, asset).state is VariantState.PENDING
    line.derive(asset.blob.sha256)
    assert bytes_of(line, output(line, asset))


def test_who_wants_to_read_it_is_told_to_ask_again(line: Line, asset: Asset) -> None:
    wish = read.understand(line.services, asset, {"profile": "thumb"})
    assert wish.want is not None
    facts = output(line, asset)
    line.services.lookups.keep_variant(asset.id, wish.want.recipe_hash, facts)
    assert not read.make_again_for(line.services, wish, facts)
    destroy(line, facts)
    with pytest.raises(StoreUnavailable):
        read.open_blob(line.services, facts, None)
    assert read.make_again_for(line.services, wish, facts)  # made again for the first who asks
    assert read.make_again_for(line.services, wish, facts)  # and on its way for the second
    assert line.services.lookups.variant(asset.id, wish.want.recipe_hash) is None
    assert thumb(line, asset).attempts == 0
    line.derive(asset.blob.sha256)
    assert bytes_of(line, output(line, asset))
    original = read.understand(line.services, asset, {})
    assert not read.make_again_for(line.services, original, asset.blob)


def test_a_store_that_is_away_makes_nothing_lost(line: Line, asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("it hangs")

    facts = output(line, asset)
    wish = read.understand(line.services, asset, {"profile": "thumb"})
    monkeypatch.setattr(line.services.store("main"), "open", refuse)
    with pytest.raises(StoreUnavailable):
        read.open_blob(line.services, facts, None)
    assert not read.make_again_for(line.services, wish, facts)
    assert not make_again(line.services, facts.sha256)
    assert thumb(line, asset).state is VariantState.READY


def test_without_its_source_it_stays_as_it_is_and_is_told(line: Line, asset: Asset) -> None:
    lose(line, output(line, asset))
    lose(line, asset.blob)
    job = run(line, verification.KIND)
    assert (job.progress["remade"], job.progress["failed"]) == (0, 2)
    assert {one.blob for one in verdict(line.services, job).quarantined} == {asset.blob, output(line, asset)}
    assert thumb(line, asset).state is VariantState.READY


def test_cut_short_it_has_not_begun(line: Line, asset: Asset, arm: Callable[..., None]) -> None:
    facts = output(line, asset)
    lose(line, facts)
    arm("remake.before-commit", "errno EIO")
    with pytest.raises(OSError, match="error"):
        make_again(line.services, facts.sha256)
    assert thumb(line, asset).state is VariantState.READY
    assert line.services.metadata.inventory.count_garbage(["main"]) == 0
    assert make_again(line.services, facts.sha256)
    assert line.services.metadata.inventory.count_garbage(["main"]) == 1
    assert not make_again(line.services, facts.sha256)  # it is pending by now


def test_a_former_holder_changes_nothing(line: Line, asset: Asset) -> None:
    """Its answer was lost, it was stopped, and it says now what it made then."""
    facts, variants = output(line, asset), line.services.metadata.variants
    [replica] = line.services.metadata.blobs.replicas(facts.sha256)
    ready = thumb(line, asset)
    lose(line, facts)
    make_again(line.services, facts.sha256)
    for fence in range(5):
        stale = LeasedVariant(ready.id, ready.source, ready.recipe, fence, 1, 1)
        with pytest.raises(Superseded):
            variants.finish([Stored(stale, [replica])])
    [held] = variants.lease(ready.source, timedelta(seconds=30), one=ready.id)
    [reserved] = line.services.metadata.blobs.reserve([(facts, "main")], timedelta(0))
    stale = LeasedVariant(ready.id, ready.source, ready.recipe, held.fence - 1, 1, 1)
    assert variants.finish([Stored(stale, [reserved.replica])]) == 0


def test_bytes_that_are_an_original_as_well_are_healed_by_it(line: Line) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    want = read.understand(line.services, asset, {"profile": "thumb"}).want
    assert want is not None
    line.services.metadata.variants.want(asset.id, asset.blob.sha256, want)
    line.derive(asset.blob.sha256)  # alone, as it will be again: what shares a decode may come out otherwise
    facts = output(line, asset)
    same = line.bring("/bare/same.jpg", bytes_of(line, facts))
    assert same.blob.sha256 == facts.sha256
    lose(line, facts)
    job = run(line, verification.KIND)
    assert job.progress["remade"] == 1
    assert [one.blob.sha256 for one in verdict(line.services, job).quarantined] == [facts.sha256]
    line.derive(asset.blob.sha256)
    assert bytes_of(line, same.blob)
    assert verdict(line.services, run(line, verification.KIND)).good
