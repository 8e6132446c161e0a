"""The S3 store against rclone's server: another implementation than moto's, over files, that checks signatures.

What it cannot do is declared in `TestS3Rclone` and shown in the tests after it, one for each limit: when one of them
fails, rclone has learned something and the declaration can go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from core.errors import Forbidden, NotFound, StoreUnavailable
from storage.interface import ObjectStore, Span
from storage.s3.store import S3Store
from tests.contracts.object_store import LEGAL_KEYS, ObjectStoreContract, fill, keys, read, sha256
from tests.rclone_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, RcloneServer, rclone_server
from tests.storage.s3_options import options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "pictures"


def open_store(server: RcloneServer, **more: Any) -> S3Store:
    given = {"bucket": BUCKET, "access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    limits = {"conditional_writes": "off", "checksum": "md5"}
    return S3Store("main", options(server.endpoint, **given | limits | more))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: RcloneServer) -> Iterator[S3Client]:
    """What rclone says to others than the store."""
    made = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        region_name="us-east-1",
        config=Config(
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    made.create_bucket(Bucket=BUCKET)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(server: RcloneServer, client: S3Client) -> Iterator[S3Store]:
    store = open_store(server)
    yield store
    store.close()


@pytest.fixture
def rclone(shared: S3Store) -> Iterator[S3Store]:
    yield shared
    shared.delete(keys(shared))


class TestS3Rclone(ObjectStoreContract):
    creates_conditionally: ClassVar = False
    legal_keys: ClassVar = [key for key in LEGAL_KEYS if key not in ("a", "a/b/c", "f" * 255 + "/" + "f" * 256)]

    @pytest.fixture
    def store(self, rclone: S3Store) -> ObjectStore:
        return rclone

    @pytest.fixture
    def residue(self, server: RcloneServer) -> Callable[[], list[str]]:
        """Files that rclone has not given their names yet."""
        return lambda: [path.name for path in server.root.rglob(".rclone_temp*")]


def test_signatures_are_checked(server: RcloneServer, rclone: S3Store) -> None:
    fill(rclone, "a")
    for wrong in ({"secret_access_key": "another"}, {"access_key_id": "another"}):
        store = open_store(server, **wrong)
        for call in (
            lambda store=store: fill(store, "b"),
            lambda store=store: read(store, "a"),
            lambda store=store: store.head("a"),
            lambda store=store: store.delete(["a"]),
            lambda store=store: keys(store),
        ):
            with pytest.raises(Forbidden):
                call()
        store.close()
    assert keys(rclone) == ["a"]


def test_a_link_is_signed(rclone: S3Store) -> None:
    fill(rclone, "a", b"abc")
    link = rclone.url("a", ttl=timedelta(minutes=5))
    assert link is not None
    assert httpx.get(link, trust_env=False).content == b"abc"
    assert httpx.get(link.replace("/a?", "/b?"), trust_env=False).status_code == 403
    assert httpx.get(link.partition("?")[0], trust_env=False).is_client_error


def test_what_rclone_says_in_its_own_way(rclone: S3Store, client: S3Client) -> None:
    """Names of metadata, the status of a range, and that there are no uploads."""
    fill(rclone, "a", b"abc")
    answer = client.get_object(Bucket=BUCKET, Key="a", Range="bytes=1-1")
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentRange"]) == (200, "bytes 1-1/3")
    assert answer["Metadata"] == {"Sha256": sha256(b"abc").hex()}
    assert rclone.head("a").sha256 == sha256(b"abc")
    assert read(rclone, "a", Span(1, 2)) == b"b"


def test_a_sweep_where_nobody_ever_uploaded(server: RcloneServer, client: S3Client) -> None:
    client.create_bucket(Bucket="unused")
    with pytest.raises(ClientError, match="NoSuchUpload"):
        client.list_multipart_uploads(Bucket="unused")
    store = open_store(server, bucket="unused")
    assert store.sweep_unfinished() == 0
    store.close()


def test_limit_it_knows_no_conditions(rclone: S3Store, client: S3Client) -> None:
    for body in (b"one", b"two"):
        client.put_object(Bucket=BUCKET, Key="a", Body=body, IfNoneMatch="*")
    assert read(rclone, "a") == b"two"


def test_limit_it_knows_no_sha256_but_an_md5(rclone: S3Store, client: S3Client) -> None:
    wrong = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    answer = client.put_object(Bucket=BUCKET, Key="a", Body=b"abc", ChecksumSHA256=wrong)
    assert "ChecksumSHA256" not in answer
    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(Bucket=BUCKET, Key="b", Body=b"abc", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
    assert keys(rclone) == ["a"]


@pytest.mark.parametrize(("there", "refused"), [("a", "a/b"), ("f" * 255, "f" * 256)], ids=["folder", "long-name"])
def test_limit_an_object_is_a_file(server: RcloneServer, rclone: S3Store, there: str, refused: str) -> None:
    """What is a file cannot be a folder, too, and a name has 255 bytes."""
    store = open_store(server, max_attempts=1)
    fill(store, there)
    with pytest.raises(StoreUnavailable):
        fill(store, refused)
    store.close()
    assert read(rclone, there) == b"bytes"
    with pytest.raises(NotFound):
        read(rclone, refused)
