"""Looking up assets and their variants, and the bytes behind them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from core.errors import Archived, MillraceError, NotFound, Unavailable
from core.model import Asset, BlobFacts, Variant, VariantState, WantedVariant
from imaging.recipe import Parameters, resolve
from metadata.paths import AssetPath
from pipeline.replicas import archive, sources
from pipeline.replicas.rerender import make_again
from pipeline.services import Services
from pipeline.variants.waiting import VariantWaits
from storage.interface import Span


class VariantFailed(MillraceError):
    """The variant was tried as often as settings allow, or its picture cannot be rendered."""

    code = "variant-failed"


class NotYet(Unavailable):
    """The variant is being made."""

    code = "variant-pending"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks of an asset: the original when `want` is None."""

    asset: Asset
    want: WantedVariant | None


def find(services: Services, path: AssetPath, entry: int | None) -> Asset:
    """The newest asset of a path, or one entry of it.

    Raises:
        NotFound: there is none, or no longer.
    """
    asset = services.lookups.asset(path, entry)
    if asset is None:
        where = path.text if entry is None else f"{path.text}, entry {entry}"
        raise NotFound(f"there is no asset at {where}")
    return asset


def understand(services: Services, asset: Asset, query: Mapping[str, str]) -> Wish:
    """The variant that `profile=` and single parameters (which win) ask for; with neither, the original.

    Raises:
        BadRequest: an unknown profile or parameter, or a value out of range.
    """
    if not query:
        return Wish(asset, None)
    own = {name: value for name, value in query.items() if name != "profile"}
    profile = query.get("profile")
    parameters = services.profiles.profile(profile) if profile is not None else Parameters.parse({})
    if own:
        parameters = parameters.override(Parameters.parse(own))
    recipe = resolve(parameters, asset.image, services.settings.variants)
    return Wish(asset, services.profiles.want(recipe, profile if not own else None))


def blob(services: Services, waits: VariantWaits, wish: Wish, *, seconds: float) -> BlobFacts:
    """The bytes a wish means. A variant that is not there is asked for once, however many ask, and waited for.

    Raises:
        NotYet: it is not there after `seconds`; asking again is right.
        VariantFailed: it cannot be made.
    """
    if wish.want is None:
        return wish.asset.blob
    known = services.lookups.variant(wish.asset.id, wish.want.recipe_hash)
    if known is not None:
        return known
    variant = waits.asking.do((wish.asset.id, wish.want.recipe_hash), partial(_ask, services, wish.asset, wish.want))
    if variant.state is VariantState.PENDING:
        if not waits.waited_for(variant.id):
            services.hints.derive(wish.asset.blob.sha256, interactive=True)
        if seconds > 0:
            waits.wait(variant.id, seconds)
            found = services.metadata.variants.find(wish.asset.id, wish.want.recipe_hash)
            if found is None:
                raise NotFound("the asset was deleted meanwhile")
            variant = found
    ready = _ready(variant)
    services.lookups.keep_variant(wish.asset.id, wish.want.recipe_hash, ready)
    return ready


def _ask(services: Services, asset: Asset, want: WantedVariant) -> Variant:
    variants = services.metadata.variants
    return variants.find(asset.id, want.recipe_hash) or variants.want(asset.id, asset.blob.sha256, want)


def _ready(variant: Variant) -> BlobFacts:
    if variant.state is VariantState.FAILED:
        why = f"{variant.failure.kind}: {variant.failure.detail}" if variant.failure else "unknown"
        raise VariantFailed(f"this variant cannot be made ({why})")
    if variant.blob is None:
        raise NotYet("the variant is being made", retry_after=1)
    return variant.blob


def open_blob(services: Services, facts: BlobFacts, span: Span | None) -> tuple[BinaryIO, ExitStack]:
    """The bytes themselves, from the first replica that has them, and what to close when they are sent.

    Raises:
        Restoring: they are in an archive, which a job asks for them.
        StoreUnavailable: no store that holds them answers, or the last of them has not within `web.store_seconds`.
    """
    stack, seconds = ExitStack(), services.settings.web.store_seconds
    try:
        return stack.enter_context(sources.stream(services, facts.sha256, span, seconds=seconds)), stack
    except Archived as error:
        raise archive.begin(services, facts.sha256, error) from error


def make_again_for(services: Services, wish: Wish, facts: BlobFacts) -> bool:
    """Return whether to ask again for bytes that cannot be read. True: they are a variant's and lost, and there are
    others by now, or will be. False: they are not lost, or nothing makes them again."""
    if wish.want is None or services.metadata.blobs.replicas(facts.sha256):
        return False
    services.lookups.forget_variant(wish.asset.id, wish.want.recipe_hash)
    if make_again(services, facts.sha256):
        return True
    variant = services.metadata.variants.find(wish.asset.id, wish.want.recipe_hash)
    return variant is not None and variant.blob != facts
