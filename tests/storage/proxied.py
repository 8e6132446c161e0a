"""Stores behind the fault proxy, and what is really in their bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage.s3.store import S3Store
from tests.storage.s3_options import options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "proxied"


def open_store(endpoint: str, **more: Any) -> S3Store:
    return S3Store("main", options(endpoint, BUCKET, **more))


def unfinished(client: S3Client) -> list[str]:
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
