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
from typing import Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from core.errors import Misconfigured

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

SPECIAL_VARIABLES = frozenset({"MILLRACE_HOME", "MILLRACE_CONFIG", "MILLRACE_FAILPOINTS"})
"""Variables that are not settings: where things are, and the switch of `core/failpoints.py`."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Staging(Section):
    path: Path | None = None
    """Default: `MILLRACE_HOME/staging`. The four folders in it must be on one file system."""
    sync: Literal["full", "data", "none"] = "full"
    """full: file and directory before the 202; data: the file only; none: leave it to the kernel."""
    ephemeral: bool = False
    """The directory is in memory; answers say `durability: memory`."""
    high_water_percent: float = Field(90, gt=0, le=100)
    min_free_bytes: ByteSize = ByteSize(512 * MIB)
    min_free_inodes: int = Field(10_000, ge=0)


class Limits(Section):
    max_bytes: ByteSize = ByteSize(2 * GIB)
    max_pixels: int = Field(100_000_000, gt=0)
    """Over all frames."""
    max_frames: int = Field(500, gt=0)


class Web(Section):
    workers: int = Field(2, ge=1)
    threads: int = Field(256, ge=8)
    """For each worker. A slow upload holds one; reads may hold half of them, waiting requests a third."""
    stall_seconds: float = Field(30, gt=0)
    """A body that sends nothing for this long ends with 408."""
    min_bytes_per_second: int = Field(1024, ge=0)
    """So does one that is slower than this, once `stall_seconds` have passed."""
    drain_bytes: ByteSize = ByteSize(4 * MIB)
    drain_seconds: float = Field(2, ge=0)
    database_seconds: float = Field(0.7, gt=0)
    """How long a request waits for PostgreSQL before it answers 503."""


class Work(Section):
    ingest_concurrency: int = Field(2, ge=1)
    variants_concurrency: int = Field(2, ge=1)
    sweep_seconds: float = Field(15, gt=0)
    maintenance_seconds: float = Field(15, gt=0)
    window_factor: int = Field(4, ge=1)
    """The sweep keeps at most this many hints for each ingest process in the queue."""
    broker_patience_seconds: float = Field(30, gt=0)
    """With Redis away this long the sweep ingests by itself."""
    backoff_seconds: float = Field(1, gt=0)
    backoff_cap_seconds: float = Field(60, gt=0)
    max_unfinished: int = Field(3, ge=1)
    """After so many starts that never ended, the work runs alone in a child with limits."""
    solo_seconds: float = Field(120, gt=0)
    solo_bytes_per_second: int = Field(1_000_000, gt=0)
    """The child's limit: `solo_seconds` + size / this."""
    solo_memory: ByteSize = ByteSize(4 * GIB)
    stalled_transfer_seconds: float = Field(60, gt=0)
    soft_time_limit_seconds: float = Field(7200, gt=0)
    time_limit_seconds: float = Field(7260, gt=0)
    lease_seconds: float = Field(30, gt=0)
    lease_renewal_seconds: float = Field(10, gt=0)
    variant_attempts: int = Field(3, ge=1)
    """A variant whose rendering fails this often is `failed`."""
    host_lost_seconds: float = Field(300, gt=0)
    incoming_grace_seconds: float = Field(3600, ge=0)
    """Left-over uploads that nobody holds are removed after this long."""
    gc_grace_seconds: float = Field(3600, ge=0)
    pending_grace_seconds: float = Field(86_400, ge=0)
    """A reserved replica that nobody confirmed is given up after this long."""


class Retention(Section):
    ingests_days: float = Field(30, gt=0)
    tombstones_days: float = Field(365, gt=0)
    failures_days: float = Field(90, gt=0)


class Variants(Section):
    eager: Literal["inline", "fleet"] = "inline"
    """inline: the ingest process renders eager variants from the staged entry; fleet: the variants workers do."""
    wait_seconds: float = Field(10, ge=0)
    """How long a request waits for a variant that is not there yet."""
    max_side: int = Field(8192, gt=0)
    max_pixels: int = Field(40_000_000, gt=0)
    cache: Path | None = None
    """Where originals are kept for rendering. Default: `MILLRACE_HOME/cache`."""
    cache_bytes: ByteSize = ByteSize(2 * GIB)


class Locks(Section):
    """Locks save work and decide nothing, so each of these may be anything."""

    kind: Literal["redis", "local", "none", "always", "never"] = "redis"
    """redis: one holder in the whole fleet; without a `redis_url` the same as local. local: one in each process.
    always, never: locks that lie, for tests; refused without `MILLRACE_FAILPOINTS`."""
    ttl: float = Field(30, ge=1)
    """Seconds after which the lock of a holder that died is free. One that lives renews it at every third of this."""
    key_prefix: str = "lock:"
    """In Redis, after the `key_prefix` of the installation."""
    max_retries: int = Field(3, ge=0)
    """How often whoever finds a lock taken tries again before leaving the work to its holder."""
    retry_delay_ms: int = Field(100, ge=1)
    """Before each of these tries, give or take half of it."""


class Cache(Section):
    """Of what a GET asks PostgreSQL."""

    kind: Literal["local", "redis", "none"] = "local"
    """local: one in each process. redis: one for the fleet; without a `redis_url` the same as local."""
    ttl_seconds: float = Field(60, ge=0)
    """For what cannot change while its asset lives: where a variant's bytes are, and an original's. 0: not cached."""
    asset_ttl_seconds: float = Field(0, ge=0)
    """For assets themselves. After a DELETE another process may answer from its cache for so long, and a path show its
    last but one. 0: not cached, so that what is deleted is gone everywhere at once."""
    max_entries: int = Field(10_000, ge=1)
    """In each process, with `local`. The one used longest ago goes first."""
    key_prefix: str = "cache:"
    """In Redis, after the `key_prefix` of the installation."""


class PathRule(Section):
    match: str
    """A path pattern: `*` is one segment, `**` any number. The first rule that matches decides."""
    eager: tuple[str, ...] = ()


class Placement(Section):
    """Where bytes go; the first rule that fits decides."""

    match: str = "/**"
    """A path pattern, as in `paths`."""
    kind: Literal["original", "variant"] | None = None
    media_type: str = "*"
    """A pattern such as `image/png` or `image/*`."""
    min_bytes: ByteSize | None = None
    max_bytes: ByteSize | None = None
    """Both included."""
    store: str
    replicas: tuple[str, ...] = ()
    """Further stores that shall hold the same bytes."""
    replication: Literal["sync", "background"] = "sync"
    """sync: an upload is stored when all of them have it; background: when `store` has it."""


class Logging(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


BUILT_IN_PROFILES: Mapping[str, dict[str, Any]] = {"thumb": {"w": 400}}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MILLRACE_", env_nested_delimiter="__", extra="forbid", frozen=True)

    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    http_url: str | None = None
    key_prefix: str = "millrace:"
    """Before every key in Redis, so that several installations can share one server."""
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
    profiles: dict[str, dict[str, Any]] = Field(default_factory=lambda: dict(BUILT_IN_PROFILES))
    """`thumb` is there unless it is given anew: the default rule of `paths` names it."""
    paths: tuple[PathRule, ...] = (PathRule(match="/**", eager=("thumb",)),)
    placement: tuple[Placement, ...] = ()
    """Which stores hold what. Without a rule that fits: `default_store`."""
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
    if settings.default_store not in settings.store_options:
        known = ", ".join(settings.store_options)
        raise Misconfigured(f"default_store: no store is called {settings.default_store!r} (there is: {known})")
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
