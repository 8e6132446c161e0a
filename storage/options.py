"""What the settings of every backend have in common: `[stores.NAME]` read by the model of its `kind`."""

from __future__ import annotations

from dataclasses import dataclass

from core.settings import Section, Staging


@dataclass(frozen=True)
class Deployment:
    """What a store must fit: how uploads are staged, and whether this process is the only one."""

    staging: Staging
    single_process: bool


class StoreOptions(Section):
    """Unknown keys are refused. Secrets are `SecretStr`, so that a dump masks them."""

    kind: str

    def objection(self, deployment: Deployment) -> str | None:
        """Why these options must not be used in this deployment, `key: reason`; None: they may."""
        del deployment
        return None
