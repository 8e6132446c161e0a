"""The arguments of a job: one model for each kind, checked when the job is made and again when it is worked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import BadRequest
from pipeline.services import Services


class Arguments(BaseModel):
    """Types are not converted, and unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def of(cls, services: Services, arguments: Mapping[str, Any]) -> Self:
        """
        Raises:
            BadRequest: what is wrong with the arguments.
        """
        try:
            given = cls(**arguments)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise BadRequest(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return given.fitted(services)

    @classmethod
    def check(cls, services: Services, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """With their defaults, always the same for the same work.

        Raises:
            BadRequest: what is wrong with the arguments.
        """
        return cls.of(services, arguments).model_dump()

    def fitted(self, services: Services) -> Self:
        """What a kind itself asks of them, with what it knows filled in.

        Raises:
            BadRequest: they do not fit the settings.
        """
        return self


def require_in_force(services: Services) -> None:
    """
    Raises:
        BadRequest: other rules are in force than this process has.
    """
    if not services.metadata.rules.are_in_force(services.rules):
        raise BadRequest("other rules are in force: `millrace storage apply-rules` puts those of its host in force")


def require_stores(services: Services, names: Sequence[str]) -> None:
    """
    Raises:
        BadRequest: there is no such store.
    """
    for name in names:
        if name not in services.stores:
            raise BadRequest(f"no store is called {name!r} (there is: {', '.join(services.stores)})")


def chosen(services: Services, names: Sequence[str]) -> list[str]:
    """The stores that are named, in one order; none named: all of them.

    Raises:
        BadRequest: there is no such store.
    """
    require_stores(services, names)
    return sorted({*names}) or sorted(services.stores)
