"""Ten variants of one original, asked for one after the other: each host downloads it once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.model import Asset
from pipeline.assets import read
from pipeline.replicas import repair
from pipeline.stores import read_tracking
from pipeline.stores.read_tracking import WrittenAccesses
from pipeline.variants.waiting import VariantWaits
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.s3_server import S3Server, s3_server

PICTURE = encoded(photo(320, 240), "JPEG")
BUCKET = "cold"

Host = Callable[..., Line]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        made.make_bucket(BUCKET)
        yield made


@pytest.fixture
def host(tmp_path: Path, database_url: str, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Makes another host of one fleet, with or without a hot tier."""
    monkeypatch.setattr(read_tracking, "WRITE_SECONDS", 3600.0)
    made: list[Line] = []

    def make(*, hot: bool) -> Line:
        stores: dict[str, dict[str, Any]] = {
            "cold": {
                "kind": "s3",
                "tier": "cold",
                "bucket": BUCKET,
                "key_prefix": tmp_path.name,
                "endpoint_url": server.endpoint,
                "access_key_id": "key",
                "secret_access_key": "secret",
            }
        }
        if hot:
            near = {"kind": "filesystem", "root": str(tmp_path / "near"), "tier": "hot", "promote_up_to": "1MiB"}
            stores["near"] = near
        made.append(Line(tmp_path / str(len(made)), database_url, stores=stores, default_store="cold"))
        return made[-1]

    yield make
    for line in made:
        line.close()


def render(line: Line, asset: Asset, width: int) -> None:
    """As a request and a worker of the fleet do it."""
    services = line.services
    wish = read.understand(services, asset, {"w": str(width)})
    waits = VariantWaits(services.metadata.variants.states)
    with pytest.raises(read.NotYet):
        read.blob(services, waits, wish, seconds=0)
    line.derive(asset.blob.sha256)
    assert read.blob(services, waits, wish, seconds=0).size > 0


def promote(line: Line) -> int:
    """What goes on beside them."""
    if isinstance(line.services.accesses, WrittenAccesses):
        line.services.accesses.write()
    return repair.repair(line.services)


def downloads(line: Line, server: S3Server, asset: Asset) -> int:
    """Of the original."""
    prefix = line.services.settings.stores["cold"]["key_prefix"]
    return server.requests("GET", f"{BUCKET}/{prefix}/{asset.blob.sha256.hex()}.")


@pytest.mark.parametrize("hot", [False, True])
def test_ten_variants_over_time_cost_one_download(host: Host, server: S3Server, hot: bool) -> None:
    line = host(hot=hot)
    asset = line.bring("/bare/a.jpg", PICTURE)
    for width in range(10, 20):
        render(line, asset, width)
        promote(line)
    assert downloads(line, server, asset) == 1
    shutil.rmtree(line.settings.cache_path / "originals")
    render(line, asset, 20)
    assert downloads(line, server, asset) == (1 if hot else 2), "the hot store's file is used where it lies"
    assert (line.settings.cache_path / "originals").exists() is not hot


@pytest.mark.parametrize(("hot", "expected"), [(False, 2), (True, 1)])
def test_another_host_has_it_from_the_hot_tier(host: Host, server: S3Server, hot: bool, expected: int) -> None:
    one, other = host(hot=hot), host(hot=hot)
    asset = one.bring("/bare/a.jpg", PICTURE)
    for width in range(10, 15):
        render(one, asset, width)
        promote(one)
        render(other, asset, width + 5)
    assert downloads(one, server, asset) == expected


def test_a_local_copy_that_rotted_is_replaced_and_not_copied(host: Host, server: S3Server) -> None:
    line = host(hot=True)
    asset = line.bring("/bare/a.jpg", PICTURE)
    render(line, asset, 10)
    [local] = (line.settings.cache_path / "originals").glob("*.copy")
    local.write_bytes(PICTURE[:-1] + b"?")
    assert promote(line) == 1
    assert downloads(line, server, asset) == 2
    assert not local.exists()
    [copy] = [one for one in line.services.metadata.blobs.replicas(asset.blob.sha256) if one.store == "near"]
    with line.services.store("near").open(copy.key) as body:
        assert body.read() == PICTURE
