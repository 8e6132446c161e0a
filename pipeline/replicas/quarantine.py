"""What is wrong with the stores after they were verified: blobs of which no good copy is left, and who needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.model import Job, JobState
from metadata.blobs.inventory import Quarantined
from pipeline.services import Services

SHOWN = 100


@dataclass(frozen=True, slots=True)
class Verdict:
    job: Job
    quarantined: Sequence[Quarantined]
    """At most `SHOWN` of them."""
    unknown_stores: Sequence[str]
    """Rows name them, and the settings do not."""

    @property
    def good(self) -> bool:
        """Everything was looked at, and is as it should be, or was mended."""
        left = any(self.job.progress.get(what) for what in ("failed", "unanswered", "ahead", "other_rules"))
        return self.job.state is JobState.DONE and not (left or self.quarantined or self.unknown_stores)


def verdict(services: Services, job: Job) -> Verdict:
    inventory = services.metadata.inventory
    unknown = [name for name in inventory.stores() if name not in services.stores]
    return Verdict(job, inventory.quarantined([*job.arguments["stores"], *unknown], SHOWN), unknown)
