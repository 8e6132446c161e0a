"""Copies between two buckets of one provider: the service makes them, and they are believed when they were read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.model import Asset, Job, JobState
from pipeline.jobs import migration
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS, create
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_placement import held_by, read
from tests.s3_server import S3Server, s3_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        for bucket in ("near", "far"):
            made.make_bucket(bucket)
        yield made


@pytest.fixture
def line(tmp_path: Path, database_url: str, server: S3Server) -> Iterator[Line]:
    given = {"kind": "s3", "endpoint_url": server.endpoint, "access_key_id": "key", "secret_access_key": "secret"}
    stores = {name: {**given, "bucket": name, "key_prefix": tmp_path.name} for name in ("near", "far")}
    made = Line(tmp_path, database_url, stores=stores, default_store="near")
    yield made
    made.close()


def migrate(line: Line) -> Job:
    arguments = {"source": "near", "target": "far", "delete_source": True}
    done = jobs.run(line.services, KINDS, create(line.services, migration.KIND, arguments).id)
    assert done is not None
    return done


def key(asset: Asset, line: Line) -> str:
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    return f"{line.settings.home.name}/{replica.key}"


def test_the_bytes_go_from_bucket_to_bucket(line: Line, server: S3Server) -> None:
    bodies = [encoded(photo(40 + number, 30), "JPEG") for number in range(3)]
    assets = [line.bring(f"/bare/{number}.jpg", body) for number, body in enumerate(bodies)]
    sources = [key(asset, line) for asset in assets]
    job = migrate(line)
    assert (job.state, job.progress["copied"], job.progress["removed"]) == (JobState.DONE, 3, 3)
    assert [server.requests("GET", f"near/{source}") for source in sources] == [0, 0, 0]
    assert [server.requests("GET", f"far/{key(asset, line)}") for asset in assets] == [1, 1, 1], "each is read once"
    assert list(line.services.store("near").scan()) == []
    for asset, body in zip(assets, bodies, strict=True):
        assert held_by(line, asset.blob) == ["far"]
        assert read(line, asset) == body


def test_a_service_that_copies_wrong_bytes_is_not_believed(line: Line, server: S3Server) -> None:
    """The hash that an object carries goes with the copy, whatever its bytes are."""
    body = encoded(photo(90, 90), "JPEG")
    asset = line.bring("/bare/rotten.jpg", body)
    rotten = body[:-1] + b"?"
    server.client().put_object(
        Bucket="near", Key=key(asset, line), Body=rotten, Metadata={"sha256": hashlib.sha256(body).hexdigest()}
    )
    job = migrate(line)
    assert (job.state, job.progress["failed"], job.progress["removed"]) == (JobState.DONE, 1, 0)
    assert line.services.metadata.blobs.replicas(asset.blob.sha256) == []
    assert [one.size for one in line.services.store("near").scan()] == [len(rotten)], "what is left of it stays"
