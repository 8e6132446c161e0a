"""The vocabulary: frozen values that the rooms hand each other. Sizes are bytes, times are aware UTC datetimes,
`sha256` and recipe hashes are 32 raw bytes, ids are UUIDs unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from uuid import UUID

T = TypeVar("T")


class Durability(StrEnum):
    HOST_DISK = "host-disk"  # file and directory synced
    HOST_CACHE = "host-cache"  # syncing is off or partial: survives the process, not the host
    MEMORY = "memory"  # ephemeral


class IngestState(StrEnum):
    STAGED = "staged"
    STORING = "storing"
    STORED = "stored"
    READY = "ready"
    FAILED = "failed"


class VariantState(StrEnum):
    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a header says. `width` and `height` are as displayed, EXIF orientation applied.
    `frames` is None where the header alone cannot tell within the probe's limits."""

    media_type: str
    width: int
    height: int
    frames: int | None
    orientation: int = 1
    has_alpha: bool = False


@dataclass(frozen=True, slots=True)
class Details:
    """What a client may say of an asset beside its bytes."""

    alt: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about an accepted upload that its bytes do not say; written once, into the staged entry."""

    id: UUID
    asset_id: UUID
    host_id: UUID
    path: str
    size: int
    sha256: bytes
    image: ImageFacts
    details: Details
    accepted_at: datetime
    fingerprint: bytes
    """SHA-256 over path, body hash and details: what an idempotency key stands for."""
    keyed: bool = False
    """An Idempotency-Key was sent, so `asset_id` is derived from it and may be met again under another `id`."""


@dataclass(frozen=True, slots=True)
class FailureReason:
    """`kind` is an error's `code` or one of `crashed`, `timed-out`, `host-lost`; `detail` is for a person."""

    kind: str
    detail: str

    @classmethod
    def unforeseen(cls, error: Exception) -> FailureReason:
        """An error that no room translated. Its text may name anything, so clients see its type only."""
        return cls("internal", f"the service met an error of its own ({type(error).__name__}); its log has it")


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempt record of a staged entry. `unfinished` counts starts that never ended in an orderly way."""

    total: int = 0
    unfinished: int = 0
    running: bool = False
    started_at: datetime | None = None
    due_at: datetime | None = None
    failure: FailureReason | None = None
    """Why the last attempt ended, or, in quarantine, why the entry is there."""


@dataclass(frozen=True, slots=True)
class StagedEntry:
    """A look at an entry without claiming it."""

    manifest: Manifest
    attempts: Attempts
    quarantined: bool


@dataclass(frozen=True, slots=True)
class BlobFacts:
    sha256: bytes
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Replica:
    """One blob's copy in one store. `key` is `<sha256 hex>.<generation>` and is never used for anything else again."""

    blob: BlobFacts
    store: str
    generation: int
    verified_at: datetime | None = field(default=None, compare=False)
    """When its bytes were last known to be right."""
    promoted: bool = field(default=False, compare=False)
    """A copy for faster reading, which no rule asks for and which may go at any time."""

    @property
    def key(self) -> str:
        return f"{self.blob.sha256.hex()}.{self.generation}"


@dataclass(frozen=True, slots=True)
class Reservation:
    """`healthy`: the bytes are said to be there; the caller checks by `head` and puts again when they are not.
    `corrupt`: other bytes were found there, even if the store denies it. `placed`: an attempt that another store
    refused has put them, so that the caller looks, too."""

    replica: Replica
    healthy: bool
    corrupt: bool = False
    placed: bool = False


@dataclass(frozen=True, slots=True)
class WantedVariant:
    """A recipe as the database keeps it: canonical parameters, resolved values only, and their SHA-256."""

    recipe_hash: bytes
    recipe: Mapping[str, Any]
    profile: str | None = None
    eager: bool = False


@dataclass(frozen=True, slots=True)
class LeasedVariant:
    """A variant this process may write until its lease ends, with `fence` in every statement."""

    id: UUID
    source: bytes
    recipe: Mapping[str, Any]
    fence: int
    attempts: int
    unfinished: int
    more: bool = field(default=False, compare=False)
    """When it was leased, others of its source were due that were left for the next time."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the metadata transaction of an ingest came to. `replay`: the asset id was known before, live or dead, and
    nothing was written. `conflict`: it was known with another fingerprint."""

    entry: int | None
    leased: Sequence[LeasedVariant] = ()
    replay: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Asset:
    id: UUID
    path: str
    entry: int
    blob: BlobFacts
    width: int
    height: int
    frames: int | None
    details: Details
    accepted_at: datetime
    """PostgreSQL's time."""
    accepted_by_host_at: datetime
    """What the clock of the host said then."""
    created_at: datetime
    image: ImageFacts


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant as one asset shows it. `blob` is there once it is ready."""

    id: UUID
    source: bytes
    profile: str | None
    eager: bool
    recipe: Mapping[str, Any]
    recipe_hash: bytes
    state: VariantState
    attempts: int
    blob: BlobFacts | None = None
    failure: FailureReason | None = None


@dataclass(frozen=True, slots=True)
class Ingest:
    """What can be said of an upload, from whatever source knows it."""

    id: UUID
    asset_id: UUID | None
    """None where only the host knew it, and that is lost."""
    state: IngestState
    attempts: int
    path: str
    entry: int | None
    accepted_at: datetime
    stored_at: datetime | None = None
    failure: FailureReason | None = None
    variants: Sequence[Variant] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A visible failure, kept for a retry or a discard. `subject` is `ingest`, `variant` or, with bytes that are lost,
    `original`; `id` is the upload's, the variant's or the asset's. `wish` is `retry` or `discard` once somebody asked
    and the host has not done it yet."""

    id: UUID
    subject: str
    host_id: UUID | None
    path: str | None
    reason: FailureReason
    failed_at: datetime
    wish: str | None = None


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (JobState.CANCELLED, JobState.DONE, JobState.FAILED)


@dataclass(frozen=True, slots=True)
class Job:
    """Long work that survives whoever does it. `cursor` is where to go on; `progress` is for people. With `wish`
    somebody asked for it to be paused or cancelled, and whoever does it has not come to that yet."""

    id: UUID
    kind: str
    arguments: Mapping[str, Any]
    state: JobState
    wish: str | None
    cursor: Mapping[str, Any]
    progress: Mapping[str, Any]
    error: str | None
    fence: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoreState:
    """What was said of a store while everything runs; it goes before the settings."""

    name: str
    state: str
    successor: str | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: Sequence[T]
    after: str | None
    """Hand this back to get the next page; None: there is none."""
