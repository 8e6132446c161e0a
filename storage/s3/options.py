"""The settings of an S3 store, and what is known of the services that speak its protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import AnyHttpUrl, ByteSize, Field, SecretStr, field_validator, model_validator

from core.sections import GIB, MIB
from storage.object_keys import EXAMINED, MEASURED
from storage.options import StoreOptions

MIN_PART = 5 * MIB
MAX_PART = 5 * GIB
"""What S3 allows for a part; the last one may be smaller."""
MAX_COPY = 5 * GIB
"""What S3 copies in one request."""

Provider = Literal["aws", "r2", "b2", "spaces", "minio"]
StorageClass = Literal[
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "REDUCED_REDUNDANCY",
    "GLACIER",
    "DEEP_ARCHIVE",
]
ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Classes whose objects must be restored before they can be read."""
RestoreTier = Literal["Expedited", "Standard", "Bulk"]
USUAL_WAITS: Final[Mapping[RestoreTier, int]] = {"Expedited": 300, "Standard": 5 * 3600, "Bulk": 12 * 3600}
USUAL_WAITS_DEEP: Final[Mapping[RestoreTier, int]] = {"Standard": 12 * 3600, "Bulk": 48 * 3600}
"""Seconds, the upper end of what AWS calls typical:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html"""

PRESETS: Final[Mapping[Any, Mapping[str, Any]]] = {
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    "aws": {"addressing_style": "virtual"},
    # Region: https://developers.cloudflare.com/r2/api/s3/api/. Conditions on PutObject and CompleteMultipartUpload:
    # …/r2/api/s3/conditional-operations/. Parts of one length: …/r2/objects/multipart-objects/.
    "r2": {"region": "auto", "addressing_style": "path", "uniform_parts": True},
    # 501 to If-None-Match (seen 2026): https://github.com/sathinduga/obsidian-s3-sync-and-backup/pull/84. 400 to
    # x-amz-checksum-sha256: https://www.backblaze.com/docs/cloud-storage-s3-compatible-api
    "b2": {"conditional_writes": "off", "checksum": "md5"},
    # Conditions are documented for GET, HEAD and COPY only, checksums not at all:
    # https://docs.digitalocean.com/products/spaces/reference/s3-compatibility/
    "spaces": {"conditional_writes": "off", "checksum": "md5"},
    # Conditions: https://github.com/minio/minio/issues/20346. By default it serves no bucket under a name of its own.
    "minio": {"region": "us-east-1", "addressing_style": "path"},
}
"""What `provider` sets; a key that is given wins."""


def _size_of_a_part(given: Mapping[str, Any]) -> ByteSize:
    return ByteSize(given["multipart_part_size"])


def _usual_wait(given: Mapping[str, Any]) -> int:
    waits = USUAL_WAITS_DEEP if given["storage_class"] == "DEEP_ARCHIVE" else USUAL_WAITS
    return waits.get(given["restore_tier"], USUAL_WAITS["Expedited"])


class S3Options(StoreOptions):
    kind: Literal["s3"] = "s3"
    provider: Provider | None = None
    """Sets what the service is known to need (`PRESETS`): aws, r2 (Cloudflare), b2 (Backblaze), spaces
    (DigitalOcean), minio. All but aws need `endpoint_url`."""
    bucket: str = Field(min_length=3)
    region: str | None = None
    """Needed where there is no `endpoint_url`."""
    endpoint_url: AnyHttpUrl | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    """With neither of the two, the default credential chain decides: environment, profile, instance role."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    key_prefix: str = ""
    """A folder for everything of this store; a `/` at its end is understood."""
    storage_class: StorageClass | None = None
    """Of every object this store writes. None: the bucket's default."""
    restore_tier: RestoreTier = "Standard"
    """How urgently an archive is asked for an object: the sooner, the dearer."""
    restore_days: int = Field(default=7, ge=1)
    """How long a restored object can be read before it has to be restored again."""
    restore_wait: int = Field(default_factory=_usual_wait, ge=1)
    """Seconds that people are told to wait for it. Default: what is usual for the tier (`USUAL_WAITS`)."""

    multipart_part_size: ByteSize = Field(default=ByteSize(50 * MIB), ge=MIN_PART, le=MAX_PART)
    """Grows for bodies that would need more than 10,000 parts."""
    multipart_threshold: ByteSize = Field(default_factory=_size_of_a_part, ge=MIN_PART, le=MAX_PART)
    """Bodies up to this size go in one request and are held in memory for it. Default: the part size."""
    uniform_parts: bool = False
    """All parts but the last have the same size. Otherwise the body is spread evenly over as many parts."""
    multipart_jobs: int = Field(default=4, ge=1, le=32)
    """Parts of one body that are on their way at once. Each is held in memory: part size times jobs, and no more."""
    multipart_copy_threshold: ByteSize = Field(default=ByteSize(5 * 1000**3), ge=MIN_PART, le=MAX_COPY)
    """Objects above this size are copied within the service in parts."""
    multipart_copy_chunk_size: ByteSize = Field(default=ByteSize(100 * 1000**2), ge=MIN_PART, le=MAX_PART)
    multipart_copy_jobs: int = Field(default=4, ge=1, le=32)
    multipart_upload_timeout: float = Field(default=86_400, gt=0)
    """Seconds after which an unfinished upload below `key_prefix` is nobody's and is aborted."""

    max_attempts: int = Field(default=4, ge=1, le=20)
    """Of one request. What is repeated (5xx, throttled, no answer, damaged on the way) waits longer each time, with
    jitter."""
    attempt_timeout: float = Field(default=30, gt=0)
    """Seconds without a byte in either direction. A slow transfer that moves is never cut."""
    operation_timeout: float = Field(default=90, gt=0)
    """Seconds for a whole call with all its attempts, plus one for each MB of the body. Reading a body that has begun
    to come is not limited. Keep it below `work.solo_seconds`, or a store that hangs looks like a hanging decoder."""
    breaker_failures: int = Field(default=3, ge=1)
    """So many requests without an answer in a row, and further ones fail at once …"""
    breaker_seconds: float = Field(default=10, gt=0)
    """… for this long. Then one is let through to look."""

    checksum: Literal["sha256", "md5"] = "sha256"
    """What a body carries so that the service can refuse a damaged one: `x-amz-checksum-sha256` or `Content-MD5`."""
    verify: Literal["store", "readback"] = "store"
    """store: the service's own checksum is believed, and an object is read back only where it tells none. readback:
    every object is read back and hashed after it was written."""
    conditional_writes: Literal["auto", "off"] = "auto"
    """auto: `If-None-Match: *`, until the service says that it does not know that. off: look first, then write."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and (provider := given.get("provider")) in PRESETS:
            return {**PRESETS[provider], **given}
        return given

    @field_validator("key_prefix")
    @classmethod
    def _as_folder(cls, value: str) -> str:
        if not value:
            return value
        folder = value.removesuffix("/")
        segments = folder.split("/")
        if any(segment in (".", "..") or not re.fullmatch(r"[A-Za-z0-9._-]+", segment) for segment in segments):
            raise ValueError("segments of letters, digits, '.', '_' and '-', between single '/'")
        if taken := {f"{segment}/" for segment in segments} & {EXAMINED, MEASURED}:
            raise ValueError(f"{taken.pop()} is where others remove what they wrote to look at: choose another name")
        return folder + "/"

    @model_validator(mode="after")
    def _archivable(self) -> S3Options:
        if self.storage_class == "DEEP_ARCHIVE" and self.restore_tier not in USUAL_WAITS_DEEP:
            raise ValueError(f"restore_tier {self.restore_tier} is not offered for storage_class DEEP_ARCHIVE")
        if self.archives and self.verify == "readback":
            raise ValueError(f"verify = readback cannot be done with storage_class {self.storage_class}")
        return self

    @property
    def archives(self) -> bool:
        return self.storage_class in ARCHIVES

    @model_validator(mode="after")
    def _complete(self) -> S3Options:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together or not at all")
        if self.endpoint_url is None and self.provider not in (None, "aws"):
            raise ValueError(f"endpoint_url is needed for provider {self.provider}")
        if self.endpoint_url is None and not self.region:
            raise ValueError("region is needed where there is no endpoint_url")
        return self
