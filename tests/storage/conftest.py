from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.retries.standard import ExponentialBackoff

from tests.s3_proxy import S3Proxy, s3_proxy
from tests.s3_server import s3_server
from tests.storage.proxied import BUCKET

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server.endpoint


@pytest.fixture(scope="session")
def session_proxy(s3_endpoint: str) -> Iterator[S3Proxy]:
    with s3_proxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(session_proxy: S3Proxy) -> Iterator[S3Proxy]:
    """Without a fault at first and at last."""
    session_proxy.clear()
    yield session_proxy
    session_proxy.clear()


@pytest.fixture(scope="session")
def bucket_client(s3_endpoint: str) -> Iterator[S3Client]:
    """The proxied bucket, past the proxy: what is really there."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture(scope="module")
def short_throttling() -> Iterator[None]:
    """botocore waits up to 1, 2, 4 s … after a SlowDown. A test that meets hundreds of them waits a hundredth of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ExponentialBackoff._DEFAULT_BACKOFF_CONFIG, "throttling_base_scale", 0.01)
        yield
