"""Variants of which no good copy is left are made again from their sources, whoever finds that they are lost."""

from __future__ import annotations

import logging

from core.model import BlobFacts
from pipeline.read import Wish
from pipeline.services import Services

log = logging.getLogger(__name__)


def make_again(services: Services, sha256: bytes) -> bool:
    """False: these bytes are no variant's, a good copy of them is left, or none of their source.

    Raises:
        DatabaseUnavailable: nothing is known.
    """
    sources = services.metadata.variants.remake(sha256)
    for source in sources:
        log.warning("a lost variant is made again", extra={"sha256": sha256.hex(), "source": source.hex()})
        services.hints.derive(source, interactive=True)
    services.lookups.forget_replicas(sha256)
    return bool(sources)


def make_again_for(services: Services, wish: Wish, facts: BlobFacts) -> bool:
    """The bytes that a wish meant cannot be read. True: as the bytes of a variant that are lost, and there are others
    by now, or will be: ask for them. False: they are not lost, or nothing makes them again."""
    if wish.want is None or services.metadata.blobs.replicas(facts.sha256):
        return False
    services.lookups.forget_variant(wish.asset.id, wish.want.recipe_hash)
    if make_again(services, facts.sha256):
        return True
    variant = services.metadata.variants.find(wish.asset.id, wish.want.recipe_hash)
    return variant is not None and variant.blob != facts
