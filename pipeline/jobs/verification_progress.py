"""What a verification is asked to do, and what it says of how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.sections import Rate
from pipeline.jobs.amounts import Amounts
from pipeline.jobs.arguments import Arguments, chosen
from pipeline.jobs.counting import Tally
from pipeline.services import Services


class Verification(Arguments):
    stores: Sequence[str] = ()
    """None given: all of them."""
    structure_only: bool = False
    max_mb_s: Rate | None = None

    def fitted(self, services: Services) -> Verification:
        return self.model_copy(update={"stores": chosen(services, self.stores)})

    def planned(self, tally: Tally) -> Progress:
        return Progress(total=tally.total, total_bytes=0 if self.structure_only else tally.total_bytes)


@dataclass(frozen=True, slots=True)
class Progress(Amounts):
    """`done`: replicas that were asked for."""

    missing: int = 0
    corrupt: int = 0
    repaired: int = 0
    remade: int = 0
    """Lost bytes of variants, which are rendered again."""
    failed: int = 0
    """Missing or corrupt still: nothing good to repair it from, or its store did not take it."""
    archived: int = 0
    """There, but nothing is known of their bytes: they would have to be restored to be read."""
    removed: int = 0
    """Objects that had been deleted, and were back: their store comes from an older copy."""
    orphans: int = 0
    """Objects that no row names: `gc` removes them."""
    ahead: int = 0
    """Objects of generations that were not given out yet: the database comes from a backup, and has to catch up."""
    foreign: int = 0
    """Objects whose keys are not ours."""
    catalogue: int = 0
    """Segments of the catalogue."""
    wanted: int = 0
    """Replicas that a rule asks for and that were not even recorded: they are made."""
    other_rules: bool = False
    """Rules that are not this process's are in force, so nothing was compared with them."""
    unanswered: Sequence[str] = ()
    """Stores that did not answer for long, and were left out from then on."""
