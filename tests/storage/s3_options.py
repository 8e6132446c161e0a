"""Options of S3 stores whose larger bodies go in parts, as small as S3 takes them."""

from __future__ import annotations

from typing import Any

from storage.s3.options import S3Options
from tests.contracts.object_store import MIB


def options(endpoint: str, bucket: str, **more: Any) -> S3Options:
    given: dict[str, Any] = {
        "bucket": bucket,
        "endpoint_url": endpoint,
        "access_key_id": "test-key",
        "secret_access_key": "test-secret",
        "addressing_style": "path",
        "multipart_threshold": 5 * MIB,
        "multipart_part_size": 5 * MIB,
        "multipart_jobs": 2,
    }
    return S3Options.model_validate(given | more)
