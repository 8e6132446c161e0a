"""Variants of which no good copy is left are made again from their sources, whoever finds that they are lost."""

from __future__ import annotations

import logging

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
