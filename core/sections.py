"""The sections of the settings, one class for each table of the TOML file. Durations are seconds, sizes bytes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


Rate = Annotated[float, Field(ge=0.001, le=1_000_000)]
"""10^6 bytes a second; within what can be waited for and counted in whole numbers."""
ANONYMOUS = (
    "web.allow_anonymous is not set, and {} is reached from other machines: there are no keys, so who reaches the "
    "service may read, write and delete everything. Listen on 127.0.0.1 behind a proxy that knows its users, or set "
    "web.allow_anonymous (`millrace up --allow-anonymous`)"
)


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
    max_decoded_bytes: ByteSize = ByteSize(2 * GIB)
    """Of a picture as the decoder gives it out: width x height x samples x bytes, and x frames where it keeps them."""


class Web(Section):
    workers: int = Field(2, ge=1)
    threads: int = Field(256, ge=8)
    """For each worker. A slow upload holds one; reads may hold half of them, waiting requests a third."""
    stall_seconds: float = Field(30, gt=0)
    """A body that sends nothing for this long ends with 408, an answer of which nothing is read is cut."""
    min_bytes_per_second: int = Field(1024, ge=0)
    """So does one that is slower than this, once `stall_seconds` have passed; either way."""
    drain_bytes: ByteSize = ByteSize(4 * MIB)
    drain_seconds: float = Field(2, ge=0)
    pool: int = Field(6, ge=1)
    """Connections of each worker to PostgreSQL at most. What is not in use goes back after seconds."""
    database_seconds: float = Field(0.7, gt=0)
    """How long a request waits for PostgreSQL before it answers 503."""
    store_seconds: float = Field(5, gt=0)
    """How long it waits for the only store that has the bytes to begin to send them."""
    stop_delay_seconds: float = Field(5, ge=0)
    """From TERM to the closing of the listeners: `/readyz` says no, and all else goes on, so that balancers look
    elsewhere first. `millrace up` waits only if this is set."""
    graceful_seconds: float = Field(60, ge=0)
    """What requests under way have from then on."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of proxies whose `X-Forwarded-For` is believed: the client is the last address in it that is not one of
    these. A client holds at most a quarter of a process's threads."""
    hosts: tuple[str, ...] = ()
    """Names that requests may call the service by, beside `localhost` and IP addresses; `*`: any. Pages of a host that
    is named here may write."""
    allow_anonymous: bool = False
    """Listen where other machines reach it, though there are no keys: who does may read, write and delete all."""


class Work(Section):
    ingest_concurrency: int = Field(2, ge=1)
    interactive_concurrency: int = Field(1, ge=1)
    """Processes that render what a request waits for, and nothing else."""
    variants_concurrency: int = Field(2, ge=1)
    """Processes that render this and all that no request waits for."""
    sweep_seconds: float = Field(15, gt=0)
    maintenance_seconds: float = Field(15, gt=0)
    window_factor: int = Field(4, ge=1)
    """At most this many hints for each ingest process wait in the queue."""
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
    last_read_seconds: float = Field(600, ge=0)
    """When a blob was read last is written down at most once in this time, where anything depends on it."""
    policy_seconds: float = Field(3600, gt=0)
    """From the end of one run of the `[[demotion]]` rules to the next."""
    policy_max_mb_s: Rate | None = None
    """10^6 bytes a second that such a run moves at most."""


class Retention(Section):
    ingests_days: float = Field(30, gt=0)
    tombstones_days: float = Field(365, gt=0)
    failures_days: float = Field(90, gt=0)
    history_days: float = Field(90, gt=0)
    """Of jobs that ended, and of what was found of replicas."""


class Variants(Section):
    eager: Literal["inline", "fleet"] = "inline"
    """inline: the ingest process renders eager variants from the staged entry; fleet: the variants workers do."""
    wait_seconds: float = Field(10, ge=0, le=300)
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
    """In Redis, after `key_prefix` and the id of the installation."""
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
    """In Redis, after `key_prefix` and the id of the installation."""


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


class Demotion(Section):
    """What moves from one store to a colder one in time; of the rules of a store the first that fits decides. Bytes
    that several assets share move when all of these fit."""

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    match: str = "/**"
    """A path pattern, as in `paths`."""
    kind: Literal["original", "variant"] | None = None
    media_type: str = "*"
    """A pattern such as `image/png` or `image/*`."""
    min_bytes: ByteSize | None = None
    max_bytes: ByteSize | None = None
    """Both included."""
    older_than_days: float = Field(0, ge=0, allow_inf_nan=False)
    """Since the youngest of the assets was accepted, and the bytes were stored."""
    unread_days: float = Field(0, ge=0, allow_inf_nan=False)
    """Since anybody read the bytes, as far as that was written down, and since they were stored."""
    pinned: tuple[str, ...] = ()
    """Path patterns. The bytes of an asset there stay where they are, whatever else fits this rule."""


class Catalogue(Section):
    """What a database that is lost can be made anew from; see docs/recovery.md."""

    seconds: float = Field(30, gt=0, le=60)
    """How often what changed is written down."""
    store: str | None = None
    """Which store holds it, below `catalog/`. Default: `default_store`."""


class Logging(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
