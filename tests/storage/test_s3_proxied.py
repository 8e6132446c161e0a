"""The S3 store keeps its whole contract through a proxy that injects mixes of faults which must not show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import pytest

from storage.interface import ObjectStore
from storage.s3.store import S3Store
from tests.contracts.object_store import ObjectStoreContract
from tests.s3_proxy import INTERNAL_ERROR, SLOW_DOWN, CutRequest, Delay, Fault, LoseAnswer, S3Proxy
from tests.storage.proxied import open_store, unfinished

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.usefixtures("short_throttling")


@pytest.fixture(scope="class")
def patient(session_proxy: S3Proxy) -> Iterator[S3Store]:
    """One client for a class: making it takes longer than most tests. It has one budget of retries for all of them, to
    which a call that needs two gives back less than it took; the rates are such that it lasts."""
    store = open_store(session_proxy.endpoint, max_attempts=12)
    yield store
    store.close()


class UnderFaults(ObjectStoreContract):
    """The contract holds as if nothing happened."""

    tells_age_of_unfinished = False  # moto says of every upload that it began in 2010
    mix: ClassVar[Mapping[Fault, float]]
    """The faults, each with its rate."""
    operations: ClassVar[Sequence[str]] = ()
    """Those it happens to; none: all."""

    @pytest.fixture
    def store(self, patient: S3Store, bucket_client: S3Client, proxy: S3Proxy) -> ObjectStore:
        for fault, rate in self.mix.items():
            proxy.inject(fault, *self.operations, rate=rate)
        return patient

    @pytest.fixture
    def residue(self, bucket_client: S3Client) -> Callable[[], list[str]]:
        return lambda: unfinished(bucket_client)


class TestS3ProxiedThrottled(UnderFaults):
    mix: ClassVar = {SLOW_DOWN: 0.3}


class TestS3ProxiedDistant(UnderFaults):
    """Beside errors, 50 ms of latency."""

    mix: ClassVar = {INTERNAL_ERROR: 0.15, Delay(0.05): 0.4}


class TestS3ProxiedBreakingOff(UnderFaults):
    """Answers are lost after the service has done it, and requests end in their middle. A lost answer to
    `CreateMultipartUpload` would leave an upload that nobody knows of, which is for the sweep."""

    mix: ClassVar = {LoseAnswer(): 0.1, CutRequest(): 0.05}
    operations: ClassVar = ("PutObject", "UploadPart", "CompleteMultipartUpload", "DeleteObjects", "GetObject")
