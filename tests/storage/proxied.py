"""Stores behind the fault proxy, and what is really in their bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage.s3.options import S3Options
from storage.s3.store import S3Store
from tests.contracts.object_store import MIB

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "proxied"


def open_store(endpoint: str, **more: Any) -> S3Store:
    given = {
        "bucket": BUCKET,
        "endpoint_url": endpoint,
        "access_key_id": "test-key",
        "secret_access_key": "test-secret",
        "addressing_style": "path",
        "multipart_threshold": 5 * MIB,
        "multipart_part_size": 5 * MIB,
        "multipart_jobs": 2,
    }
    return S3Store("main", S3Options.model_validate(given | more))


def unfinished(client: S3Client) -> list[str]:
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
