"""A database made anew: the same as it was, whatever of the catalogue and the stores is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from core.errors import AlreadyExists
from core.model import Details, JobState
from core.sections import Placement
from imaging.recipe import Parameters, resolve
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.jobs import gc
from pipeline.journal.writing import write
from pipeline.recovery.rebuilding import Report, rebuild
from pipeline.uploads.ingest import Outcome
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import contents, run
from tests.pipeline.line import Line
from tests.pipeline.test_orphans import put, rows
from tests.pipeline.test_placement import lined, read

TOLD = {
    "asset": "id, path::text, path_text, path_hash, entry, blob, width, height, frames, orientation, has_alpha, alt,"
    " fingerprint, upload_id, accepted_at, accepted_by_host_at, created_at",
    "tombstone": "*",
    "label": "*",
    "tag": "*",
    "path_counter": "*",
    "blob": "sha256, size, media_type",
    "replica": "blob, store, generation, state",
    "variant": "source, recipe_hash, recipe::text, blob, state",
    "asset_variant JOIN variant ON variant.id = variant_id": "asset_id, source, recipe_hash, profile, eager",
    "upload JOIN asset ON asset.id = asset_id": "upload.id, host_id, asset_id, upload.path_text, upload.accepted_at",
    "installation": "*",
}
"""What has to be there again, and of what."""

SAFE = Placement(match="/safe/**", store="main", replicas=("far",))
PICTURE = encoded(photo(320, 240), "JPEG")


def picture(number: int) -> bytes:
    return encoded(photo(40 + number, 30), "JPEG")


def sql(line: Line, query: str) -> list[tuple[Any, ...]]:
    url = line.settings.database_url
    assert url is not None
    connection = psycopg2.connect(url.get_secret_value())
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        found = cursor.fetchall()
    connection.close()
    return found


def known(line: Line) -> dict[str, list[str]]:
    return {
        table: sorted(str(row) for row in sql(line, f"SELECT one::text FROM (SELECT {columns} FROM {table}) AS one"))
        for table, columns in TOLD.items()
    }


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url, SAFE)
    for name in made.services.stores:
        made.services.recognitions[name].look()
    yield made
    made.close()


@pytest.fixture
def anew(tmp_path: Path, make_database: Callable[[str], str], template_database: str) -> Iterator[Callable[[], Line]]:
    """The same home and stores beside another, empty database."""
    opened: list[Line] = []

    def open_one() -> Line:
        opened.append(lined(tmp_path, make_database(template_database), SAFE))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def quiet(what: str, done: int, total: int | None) -> None: ...


def rebuilt(line: Line, **options: Any) -> Report:
    return rebuild(line.services, quiet, **options)


def delete(line: Line, path: str, *, purge: bool = False) -> None:
    deletion.delete(line.services, AssetPath.from_text(path), 0, purge=purge)


def populate(line: Line) -> None:
    """Every kind of thing that is to come back."""
    details = Details("ein Schuh", {"größe": "44", "x": ""}, ("rot", "schuh"))
    asset = line.bring("/schöne schuhe/a.jpg", PICTURE, details=details)
    line.bring("/schöne schuhe/a.jpg", picture(1), key="a key")
    line.bring("/elsewhere.jpg", PICTURE)
    line.bring("/safe/b.png", encoded(photo(33, 22), "PNG"))
    for name in ("gone", "purged"):
        line.bring(f"/bare/{name}.jpg", picture(5))
        delete(line, f"/bare/{name}.jpg", purge=name == "purged")
    wide = resolve(Parameters.parse({"w": 31}), asset.image, line.settings.variants)
    want = line.services.profiles.want(wide, None)
    line.services.metadata.variants.want(asset.id, asset.blob.sha256, want)
    line.derive(asset.blob.sha256)
    line.collect()


def test_everything_is_as_it_was(line: Line, anew: Callable[[], Line]) -> None:
    populate(line)
    write(line.services)
    before = known(line)
    other = anew()
    report = rebuilt(other)
    assert known(other) == before
    assert report.complete
    assert (report.loaded.assets, report.loaded.deleted, report.loaded.to_render) == (4, 2, 0)
    assert sql(other, "SELECT count(*) FROM replica WHERE last_verified_at IS NOT NULL") == [(0,)]
    [(again,)] = sql(other, "SELECT id FROM asset WHERE path_text = '/elsewhere.jpg'")
    asset = other.services.metadata.assets.by_id(again)
    assert asset is not None
    assert read(other, asset) == PICTURE


def test_it_goes_on_where_it_was(line: Line, anew: Callable[[], Line]) -> None:
    """Idempotency keys, the numbers of entries, generations, events, and gc."""
    populate(line)
    write(line.services)
    ceiling = line.services.metadata.inventory.last_generation()
    last = line.services.metadata.outbox.last()
    other = anew()
    rebuilt(other)
    again = other.accept("/schöne schuhe/a.jpg", picture(1), key="a key")
    assert other.ingest(again.id) in (Outcome.GONE, Outcome.STORED)
    assert by_id(other, again.asset_id).entry == 1
    assert sql(other, "SELECT count(*) FROM asset") == [(4,)]
    assert other.bring("/schöne schuhe/a.jpg", picture(9)).entry == 2
    for name in ("gone", "purged"):
        assert other.bring(f"/bare/{name}.jpg", picture(10)).entry == 1
    assert other.services.metadata.inventory.last_generation() > ceiling
    assert other.services.metadata.outbox.last() > last
    assert other.services.metadata.inventory.installation() == line.services.metadata.inventory.installation()
    done = run(other, gc.KIND, grace_seconds=0)
    assert done.state is JobState.DONE
    assert all(read(other, asset) for (one,) in sql(other, "SELECT id FROM asset") if (asset := by_id(other, one)))


def by_id(line: Line, asset_id: Any) -> Any:
    return line.services.metadata.assets.by_id(asset_id)


def test_a_dry_run_says_the_same_and_changes_nothing(line: Line, anew: Callable[[], Line], tmp_path: Path) -> None:
    populate(line)
    write(line.services)
    before = rows(line), contents(tmp_path)
    said = rebuilt(line, dry_run=True)
    assert (rows(line), contents(tmp_path)) == before
    done = rebuilt(anew())
    for name in ("assets", "deleted", "missing", "variants", "lacking"):
        assert getattr(said.loaded, name) == getattr(done.loaded, name), name
    assert (said.unnamed, said.complete) == (0, True)


def test_what_was_not_written_down_yet_is_listed_and_can_be_brought_back(
    line: Line, anew: Callable[[], Line], tmp_path: Path
) -> None:
    populate(line)
    write(line.services)
    lost = line.bring("/bare/lost.jpg", picture(30))
    put(line, f"{'ab' * 32}.7", b"torn")
    other = anew()
    report = rebuilt(other, save_unnamed=tmp_path / "saved")
    found = {one.key.partition(".")[0]: one for one in report.unnamed_objects}
    assert set(found) == {lost.blob.sha256.hex(), "ab" * 32}
    listed = found[lost.blob.sha256.hex()]
    assert (listed.store, listed.size) == ("main", lost.blob.size)
    assert not report.complete
    [saved] = (tmp_path / "saved").iterdir()
    assert (saved.name, saved.read_bytes()) == (f"{lost.blob.sha256.hex()}.jpg", picture(30))
    assert report.saved == 1
    brought = other.bring("/bare/lost.jpg", saved.read_bytes())
    assert read(other, brought) == picture(30)
    run(other, gc.KIND, grace_seconds=0)
    assert read(other, brought) == picture(30)


def test_a_database_that_is_not_empty_is_refused(line: Line) -> None:
    populate(line)
    write(line.services)
    before = rows(line)
    with pytest.raises(AlreadyExists, match="not empty"):
        rebuilt(line)
    assert rows(line) == before


_CODE = """
import sys
from pathlib import Path
from pipeline.recovery.rebuilding import rebuild
from tests.pipeline.test_placement import lined

rebuild(lined(Path(sys.argv[1]), sys.argv[2]).services, lambda *_: None)
"""


@pytest.mark.parametrize("step", ["rebuild.before-commit", "rebuild.after-commit"])
def test_killed_it_has_done_nothing_or_everything(
    line: Line, anew: Callable[[], Line], arm: Callable[..., None], tmp_path: Path, step: str
) -> None:
    populate(line)
    write(line.services)
    before = known(line)
    other = anew()
    url = other.settings.database_url
    assert url is not None
    arm(step, "kill")
    command = [sys.executable, "-c", _CODE, str(tmp_path), url.get_secret_value()]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    if step == "rebuild.before-commit":
        assert sql(other, "SELECT count(*) FROM asset") == [(0,)]
        rebuilt(other)
    assert known(other) == before
