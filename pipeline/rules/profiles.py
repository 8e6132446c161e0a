"""Which variants are wanted: profiles by name, and the eager ones of a path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import BadRequest, Misconfigured
from core.model import ImageFacts, WantedVariant
from core.patterns import path_pattern
from core.sections import Variants
from core.settings import Settings
from imaging.recipe import Parameters, Recipe, resolve


@dataclass(frozen=True)
class Profiles:
    """The settings' profiles and path rules, checked once."""

    named: Mapping[str, Parameters]
    rules: Sequence[tuple[re.Pattern[str], Sequence[str]]]
    limits: Variants

    @classmethod
    def parse(cls, settings: Settings) -> Profiles:
        """
        Raises:
            Misconfigured: naming the profile or the rule.
        """
        named: dict[str, Parameters] = {}
        for name, options in settings.profiles.items():
            try:
                named[name] = Parameters.parse(options).checked(settings.variants)
            except BadRequest as error:
                raise Misconfigured(f"profiles.{name}: {error.detail}") from None
        for rule in settings.paths:
            for name in rule.eager:
                if name not in named:
                    raise Misconfigured(f"paths: the rule for {rule.match!r} names no profile of ours: {name!r}")
        return cls(named, [(path_pattern(rule.match), rule.eager) for rule in settings.paths], settings.variants)

    def eager(self, path: str, image: ImageFacts) -> list[WantedVariant]:
        """The variants an asset at `path` gets without being asked; two profiles with one result are one variant."""
        names = next((names for pattern, names in self.rules if pattern.fullmatch(path)), ())
        return [self.want(resolve(self.named[name], image, self.limits), name, eager=True) for name in names]

    def profile(self, name: str) -> Parameters:
        """
        Raises:
            BadRequest: no profile has that name.
        """
        try:
            return self.named[name]
        except KeyError:
            known = ", ".join(sorted(self.named)) or "none"
            raise BadRequest(f"no profile is called {name!r} (there is: {known})") from None

    @staticmethod
    def want(recipe: Recipe, profile: str | None, *, eager: bool = False) -> WantedVariant:
        return WantedVariant(recipe.hash, recipe.canonical, profile, eager)
