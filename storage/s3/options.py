"""The settings of an S3 store, and the client that they make."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from pydantic import AnyHttpUrl, ByteSize, Field, SecretStr, field_validator, model_validator

from core.errors import Misconfigured
from core.settings import MIB
from storage.options import StoreOptions

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 5
READ_SECONDS = 30
"""Without a byte, in either direction."""
ATTEMPTS = 3
CONNECTIONS = 64


class S3Options(StoreOptions):
    kind: Literal["s3"] = "s3"
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
    multipart_threshold: ByteSize = Field(default=ByteSize(16 * MIB), ge=1, le=5 * 1024 * MIB)
    """Bodies up to this size go in one request and are held in memory for it."""
    multipart_part_size: ByteSize = Field(default=ByteSize(16 * MIB), ge=5 * MIB, le=5 * 1024 * MIB)
    multipart_jobs: int = Field(default=4, ge=1, le=32)
    """Parts of one body that are on their way at once; each is held in memory."""
    multipart_upload_timeout: float = Field(default=86_400, gt=0)
    """Seconds after which an unfinished upload below `key_prefix` is nobody's and is aborted."""

    @field_validator("key_prefix")
    @classmethod
    def _as_folder(cls, value: str) -> str:
        if not value:
            return value
        folder = value.removesuffix("/")
        segments = folder.split("/")
        if any(segment in (".", "..") or not re.fullmatch(r"[A-Za-z0-9._-]+", segment) for segment in segments):
            raise ValueError("segments of letters, digits, '.', '_' and '-', between single '/'")
        return folder + "/"

    @model_validator(mode="after")
    def _complete(self) -> S3Options:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together or not at all")
        if self.endpoint_url is None and not self.region:
            raise ValueError("region is needed where there is no endpoint_url")
        return self


def make_client(name: str, options: S3Options) -> S3Client:
    """A thread-safe client for this process; it connects to nothing yet.

    Raises:
        Misconfigured: botocore cannot work with these options.
    """
    secret = options.secret_access_key
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": options.addressing_style},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        # Later defaults add checksums that other S3 services do not know; ours are sent explicitly.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client(
            "s3",
            region_name=options.region or "us-east-1",
            endpoint_url=str(options.endpoint_url).rstrip("/") if options.endpoint_url else None,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise Misconfigured(f"stores.{name}: {error}") from error
