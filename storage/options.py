"""What the settings of every backend have in common: `[stores.NAME]` read by the model of its `kind`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Self, get_args

from pydantic import ByteSize, Field, SecretStr, ValidationInfo, field_validator

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

    looks_are_cheap: ClassVar[bool] = False
    """To look for the marker costs next to nothing beside a write, so every writer looks."""

    kind: str
    tier: Tier = "warm"
    """Of several stores that hold the same bytes, the hotter is read first."""
    priority: int = 0
    """Within a tier, the lower is read first."""
    state: Literal["active", "draining", "read-only"] = "active"
    """Stores that are not active keep what they hold and are read, and take nothing new."""
    price_per_gib_month: float | None = Field(None, ge=0, allow_inf_nan=False)
    """What 2^30 bytes cost here for a month, in any currency, for telling what moving saves."""
    promote_up_to: ByteSize | None = Field(None, gt=0)
    """What is read from a colder tier is copied here, so much of it that together it has this size. What was read
    longest ago goes first."""
    promote_max_bytes: ByteSize | None = Field(None, gt=0)
    """The largest object that is copied. Default: a tenth of `promote_up_to`."""

    @field_validator("promote_up_to")
    @classmethod
    def _hot(cls, given: ByteSize | None, info: ValidationInfo) -> ByteSize | None:
        if given is not None and info.data.get("tier", "hot") != "hot":
            raise ValueError(
                f'copies for faster reading are made in a store with tier = "hot", not {info.data["tier"]!r}'
            )
        return given

    @field_validator("promote_max_bytes")
    @classmethod
    def _within(cls, given: ByteSize | None, info: ValidationInfo) -> ByteSize | None:
        if given is not None and "promote_up_to" in info.data:
            room = info.data["promote_up_to"]
            if room is None:
                raise ValueError("nothing is copied here without promote_up_to")
            if given > room:
                raise ValueError("larger than promote_up_to")
        return given

    @property
    def archives(self) -> bool:
        """What such a store writes cannot be read at once."""
        return False

    def objection(self, deployment: Deployment) -> str | None:
        """Why these options must not be used in this deployment, `key: reason`; None: they may."""
        del deployment
        return None

    def completed(self, deployment: Deployment) -> Self:
        """These options with what the deployment gives where they leave it open."""
        del deployment
        return self
