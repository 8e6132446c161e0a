"""Verifying stores beside uploads: what is uploaded again heals, proves nothing, and nothing that lives is marked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from core.model import Asset
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.replicas.quarantine import verdict
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_placement import held_by, lined, read
from tests.pipeline.test_verification import BOTH, bring, file_of, originals, picture, replica_of, verify, wrong


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url, BOTH)
    yield made
    made.close()


@pytest.fixture
def assets(tmp_path: Path, database_url: str) -> list[Asset]:
    return originals(tmp_path, database_url)


def test_the_same_bytes_uploaded_again_take_the_place_of_corrupt_ones(
    line: Line, assets: list[Asset], tmp_path: Path
) -> None:
    for store in ("main", "far"):
        wrong(tmp_path, replica_of(line, assets[0], store))
    assert not verdict(line.services, verify(line)).good
    again = line.bring("/safe/bare/again.jpg", picture(0))
    assert again.blob == assets[0].blob
    for asset in (again, assets[0]):
        assert read(line, asset) == picture(0)
    assert verdict(line.services, verify(line)).good
    line.collect()
    assert held_by(line, again.blob) == ["far", "main"]


ROTTEN = "UPDATE millrace_objects.blob_chunk SET data = set_byte(data, 100, 255 - get_byte(data, 100))"


def test_a_store_that_remembers_another_hash_than_it_has_is_not_believed(tmp_path: Path, database_url: str) -> None:
    """The same upload again: the store says that it has these bytes already, and the row says that they are bad."""
    line = Line(tmp_path, database_url, stores={"main": {"kind": "postgres"}}, paths=())
    asset = line.bring("/a.jpg", picture(0))
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"{ROTTEN} WHERE octet_length(data) > 200")
    connection.close()
    job = verify(line)
    assert (job.progress["corrupt"], job.progress["failed"]) == (1, 1)
    line.bring("/b.jpg", picture(0))
    assert read(line, asset) == picture(0)
    assert verdict(line.services, verify(line)).good
    line.close()


def test_the_same_upload_again_is_no_verification(line: Line, assets: list[Asset]) -> None:
    """Its bytes are asked for and not read, so they keep their turn."""
    before = replica_of(line, assets[0], "main")
    line.bring("/safe/bare/again.jpg", picture(0))
    assert replica_of(line, assets[0], "main").verified_at == before.verified_at


def test_beside_uploads_and_deletes_nothing_is_marked(line: Line) -> None:
    bring(line, 5)
    stop, alive, errors = threading.Event(), [], []

    def live() -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                asset = line.bring(f"/safe/live/{number}.jpg", encoded(photo(60, 60 + number % 90), "JPEG"))
                if number % 2:
                    deletion.delete(line.services, AssetPath.from_text(asset.path), asset.entry, purge=True)
                    line.collect()
                else:
                    alive.append(asset)
        except BaseException as error:
            errors.append(error)

    beside = threading.Thread(target=live)
    beside.start()
    try:
        jobs = [verify(line) for _ in range(4)]
    finally:
        stop.set()
        beside.join()
    assert not errors
    assert alive
    for job in jobs:
        assert [job.progress[name] for name in ("missing", "corrupt", "failed", "orphans")] == [0] * 4
    assert all(held_by(line, asset.blob) == ["far", "main"] for asset in alive)


def test_what_somebody_else_is_copying_just_now_is_no_failure(
    line: Line, assets: list[Asset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_of(tmp_path, replica_of(line, assets[0], "far")).unlink()

    def another(step: str, key: object = "") -> None:
        """Begins where our bytes are put and the row does not say so yet."""
        if step == "copy.after-put":
            [ours] = line.services.metadata.inventory.sick(["far"], (b"", ""), 1)
            line.services.metadata.repairs.begin(ours)

    monkeypatch.setattr("pipeline.replicas.copying.failpoint", another)
    job = verify(line)
    assert (job.progress["missing"], job.progress["repaired"], job.progress["failed"]) == (1, 0, 0)
    assert verdict(line.services, job).good
    assert held_by(line, assets[0].blob) == ["main"], "the other one is at it still"
