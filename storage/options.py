"""What the settings of every backend have in common: `[stores.NAME]` read by the model of its `kind`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Self, get_args

from pydantic import SecretStr

from core.sections import Section, Staging

Tier = Literal["hot", "warm", "cold"]
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)
"""In the order in which they are read."""


@dataclass(frozen=True)
class Deployment:
    """What a store must fit: how uploads are staged, whether this process is the only one, where the metadata are."""

    staging: Staging
    single_process: bool
    database_url: SecretStr | None = None


class StoreOptions(Section):
    """Unknown keys are refused. Secrets are `SecretStr`, so that a dump masks them."""

    one_owner: ClassVar[bool] = False
    """One process at a time can write to such a store; others read it at most."""

    kind: str
    tier: Tier = "warm"
    """Of several stores that hold the same bytes, the hotter is read first."""
    priority: int = 0
    """Within a tier, the lower is read first."""
    state: Literal["active", "draining", "read-only"] = "active"
    """Stores that are not active keep what they hold and are read, and take nothing new."""

    def objection(self, deployment: Deployment) -> str | None:
        """Why these options must not be used in this deployment, `key: reason`; None: they may."""
        del deployment
        return None

    def completed(self, deployment: Deployment) -> Self:
        """These options with what the deployment gives where they leave it open."""
        del deployment
        return self
