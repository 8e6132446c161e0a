"""The whole way: gather, load, and say what nobody could tell.

Everything that takes long and can fail (reading segments, listing stores) comes before the one transaction that writes.
So a rebuild that is killed at any moment has changed nothing, and the way to go on is to begin again.
"""

from __future__ import annotations

import logging
import mimetypes
import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import UUID

from core.errors import Corrupt, NotFound, Rejected, Unavailable
from core.failpoints import failpoint
from imaging.probe import UNLIMITED, probe
from pipeline.recovery import gathering, loading
from pipeline.recovery.gathered import Gathered, Unnamed
from pipeline.recovery.gathering import Sources, Told
from pipeline.recovery.loading import LISTED, Loaded
from pipeline.replicas.identification import identify_filled
from pipeline.scratch import scratch, scratch_root
from pipeline.services import Services
from storage.reading import verified_blocks
from storage.recognised import bare

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    sources: Sources
    loaded: Loaded
    installation: UUID | None
    unnamed: int
    """Objects of which no segment tells, and their bytes. Among them are the originals of the last seconds."""
    unnamed_bytes: int
    unnamed_objects: list[Unnamed]
    saved: int = 0

    @property
    def complete(self) -> bool:
        """Nothing needs a person."""
        return not (self.loaded.missing or self.unnamed or self.sources.damaged or self.loaded.renumbered)


def rebuild(services: Services, told: Told, *, dry_run: bool = False, save_unnamed: Path | None = None) -> Report:
    """Fill the empty database of these services, or, with `dry_run`, say what that would come to, beside any database.

    Raises:
        AlreadyExists: the database is not empty.
        Unavailable, Forbidden: a store or PostgreSQL does not answer; nothing was changed.
        Misconfigured: the stores belong to several installations, or a newer Millrace wrote the catalogue.
    """
    with scratch(scratch_root(services.settings)) as directory, closing(Gathered(directory)) as gathered:
        sources = gathering.gather(services, gathered, told)
        installed = gathering.installation(services, sources)
        if dry_run:
            loaded = loading.count(services, gathered, told)
        else:
            loaded = services.metadata.rebuilding.load(
                lambda loader: _fed(loading.load(services, gathered, loader, installed, told))
            )
            failpoint("rebuild.after-commit")
            identify_filled(services, log.info)  # those without a marker; `millrace migrate` would do it, too
        saved = 0 if save_unnamed is None else _save(services, gathered.unnamed(), save_unnamed, told)
        count, size = gathered.count_unnamed()
        listed = list(islice(gathered.unnamed(), LISTED))
        return Report(sources, loaded, installed, count, size, listed, saved)


def _fed(loaded: Loaded) -> Loaded:
    failpoint("rebuild.before-commit")
    return loaded


def _save(services: Services, unnamed: Iterable[Unnamed], directory: Path, told: Told) -> int:
    """Each once as a file, for `millrace ingest`; what is no whole picture is left where it is."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        saved: dict[bytes, None] = {}
        for one in unnamed:
            if one.sha256 not in saved and _saved(services, one, directory):
                saved[one.sha256] = None
                told("saving what is unnamed", len(saved), None)
    except OSError as error:
        raise Unavailable(f"{directory}: {error.strerror}") from None
    return len(saved)


def _saved(services: Services, one: Unnamed, directory: Path) -> bool:
    scratch = directory / f".{one.sha256.hex()}"
    try:
        with bare(services.store(one.store)).open(one.key) as body, scratch.open("wb+") as file:
            for block in verified_blocks(body, size=one.size, sha256=one.sha256):
                file.write(block)
            file.flush()
            facts = probe(file, size=one.size, limits=UNLIMITED)
        suffix = mimetypes.guess_extension(facts.media_type) or ""
        os.rename(scratch, directory / f"{one.sha256.hex()}{suffix}")
    except (Corrupt, NotFound, Rejected):
        return False
    finally:
        scratch.unlink(missing_ok=True)
    return True
