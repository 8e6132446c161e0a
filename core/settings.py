"""Settings: one TOML file (`MILLRACE_CONFIG`, else `millrace.toml`) and the environment, which wins.

`MILLRACE_STAGING__SYNC=none` is `[staging] sync = "none"`. Unknown keys and `MILLRACE_` variables are refused by
name. Durations are seconds, sizes bytes (`"512MiB"` works too). What the environment and the file leave open beside a
running `millrace up` comes from `MILLRACE_HOME/run/services.json`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from core.contradictions import found
from core.errors import Misconfigured
from core.sections import (
    Cache,
    Catalogue,
    Demotion,
    Limits,
    Locks,
    Logging,
    PathRule,
    Placement,
    Retention,
    Staging,
    Variants,
    Web,
    Work,
)

SPECIAL_VARIABLES = frozenset({"MILLRACE_HOME", "MILLRACE_CONFIG", "MILLRACE_FAILPOINTS"})
"""Variables that are not settings: where things are, and the switch of `core/failpoints.py`."""


BUILT_IN_PROFILES: Mapping[str, dict[str, Any]] = {"thumb": {"w": 400}}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MILLRACE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    http_url: str | None = None
    key_prefix: str = "millrace:"
    """Before every key in Redis, followed by the installation's id: several can share one server."""
    default_store: str = "main"
    stores: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of each store; `kind` says which backend reads the rest. Default: one filesystem store below the home."""
    staging: Staging = Staging()
    limits: Limits = Limits()
    web: Web = Web()
    work: Work = Work()
    retention: Retention = Retention()
    variants: Variants = Variants()
    locks: Locks = Locks()
    cache: Cache = Cache()
    catalogue: Catalogue = Catalogue()
    profiles: dict[str, dict[str, Any]] = Field(default_factory=lambda: dict(BUILT_IN_PROFILES))
    """`thumb` is there unless it is given anew: the default rule of `paths` names it."""
    paths: tuple[PathRule, ...] = (PathRule(match="/**", eager=("thumb",)),)
    placement: tuple[Placement, ...] = ()
    """Which stores hold what. Without a rule that fits: `default_store`."""
    demotion: tuple[Demotion, ...] = ()
    """What moves to a colder store in time."""
    log: Logging = Logging()
    home: Path = Field(default=Path(".millrace"), exclude=True)

    @field_validator("profiles")
    @classmethod
    def _beside_the_built_in(cls, given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {**BUILT_IN_PROFILES, **given}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = _home(os.environ)
        return (
            init_settings,
            env_settings,
            InitSettingsSource(settings_cls, _from_file(os.environ)),
            InitSettingsSource(settings_cls, _from_services(home)),
        )

    @property
    def staging_path(self) -> Path:
        return self.staging.path or self.home / "staging"

    @property
    def cache_path(self) -> Path:
        return self.variants.cache or self.home / "cache"

    @property
    def troubles_path(self) -> Path:
        return self.home / "troubles"

    @property
    def store_options(self) -> Mapping[str, Mapping[str, Any]]:
        if self.stores:
            return self.stores
        return {self.default_store: {"kind": "filesystem", "root": str(self.home / "store")}}


def load() -> Settings:
    """Read, check and return the settings of this process.

    Raises:
        Misconfigured: with one line for each fault, naming the key.
    """
    _refuse_unknown_variables(os.environ)
    try:
        settings = Settings(home=_home(os.environ))
    except ValidationError as error:
        raise Misconfigured(_describe(error)) from None
    contradictions = list(found(settings))
    if contradictions:
        raise Misconfigured("\n".join(contradictions))
    for key, name in (("default_store", settings.default_store), ("catalogue.store", settings.catalogue.store)):
        if name is not None and name not in settings.store_options:
            known = ", ".join(settings.store_options)
            raise Misconfigured(f"{key}: no store is called {name!r} (there is: {known})")
    if settings.locks.kind in ("always", "never") and not os.environ.get("MILLRACE_FAILPOINTS"):
        raise Misconfigured(f"locks.kind: {settings.locks.kind!r} is a lock that lies, for tests only")
    return settings


def require_url(value: SecretStr | None, name: str) -> str:
    if value is None:
        raise Misconfigured(
            f"{name} is not set: set MILLRACE_{name.upper()}, or start `millrace up` with the same MILLRACE_HOME"
        )
    return value.get_secret_value()


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("MILLRACE_HOME") or ".millrace").absolute()


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get("MILLRACE_CONFIG")
    path = Path(named or "millrace.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise Misconfigured(f"MILLRACE_CONFIG names {named}, and there is no such file") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise Misconfigured(f"{path}: {error}") from None


def _from_services(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / "run" / "services.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: found[name] for name in ("database_url", "redis_url", "http_url") if name in found}


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    unknown = [
        name
        for name in environment
        if name.upper().startswith("MILLRACE_") and name not in SPECIAL_VARIABLES and not _is_setting(name.upper())
    ]
    if unknown:
        raise Misconfigured("unknown environment variables: " + ", ".join(sorted(unknown)))


def _is_setting(name: str) -> bool:
    first, *rest = name.removeprefix("MILLRACE_").lower().split("__")
    if first == "home" or first not in Settings.model_fields:
        return False
    section = Settings.model_fields[first].annotation
    if isinstance(section, type) and issubclass(section, BaseModel):
        return not rest or (len(rest) == 1 and rest[0] in section.model_fields)
    return True


def _describe(error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(part) for part in fault["loc"])
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"]
        lines.append(f"{key}: {message}")
    return "\n".join(lines)
