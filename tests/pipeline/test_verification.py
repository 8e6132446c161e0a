"""Verifying stores: what is missing, wrong or nobody's is found, what can be mended is, and the rest is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest

from core.errors import BadRequest, Forbidden, StoreUnavailable
from core.model import Asset, Job, JobState, Replica
from core.sections import Placement
from pipeline.jobs import verification
from pipeline.jobs.registry import create
from pipeline.replicas.quarantine import verdict
from pipeline.replicas.sources import mark
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import go_on, killed, run
from tests.pipeline.line import Line
from tests.pipeline.test_placement import held_by, lined, read

BOTH = Placement(match="/safe/**", store="main", replicas=("far",))


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url, BOTH)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "TRY_SECONDS", 0.01)
    monkeypatch.setattr(verification, "TRIES", 5)
    for name in ("ROWS", "OBJECTS"):
        monkeypatch.setattr(verification, name, 2)


def picture(number: int) -> bytes:
    return encoded(photo(40 + number, 30), "JPEG")


def bring(line: Line, count: int, path: str = "/safe/bare") -> list[Asset]:
    return [line.bring(f"{path}/{number}.jpg", picture(number)) for number in range(count)]


def originals(home: Path, database_url: str) -> list[Asset]:
    """Without variants, each in `main` and `far`."""
    made = Line(home, database_url, stores=_stores(home), placement=(BOTH,), paths=())
    try:
        return bring(made, 5)
    finally:
        made.close()


@pytest.fixture
def assets(tmp_path: Path, database_url: str) -> list[Asset]:
    return originals(tmp_path, database_url)


def _stores(home: Path) -> dict[str, dict[str, str]]:
    return {name: {"kind": "filesystem", "root": str(home / name)} for name in ("main", "fast", "far")}


def replica_of(line: Line, asset: Asset, store: str) -> Replica:
    return next(one for one in line.services.metadata.blobs.replicas(asset.blob.sha256) if one.store == store)


def file_of(home: Path, replica: Replica) -> Path:
    [found] = (home / replica.store).rglob(replica.key)
    return found


def wrong(home: Path, replica: Replica) -> None:
    """Another byte at the end, and the same size."""
    file = file_of(home, replica)
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def verify(line: Line, watch: Callable[[Job], None] = lambda job: None, **arguments: object) -> Job:
    return run(line, verification.KIND, watch, **arguments)


def test_what_is_right_stays_as_it_is_and_is_verified_anew(line: Line, assets: list[Asset], tmp_path: Path) -> None:
    before = [replica_of(line, asset, "main") for asset in assets]
    job = verify(line)
    assert job.state is JobState.DONE
    progress = job.progress
    assert (progress["total"], progress["done"]) == (10, 10)
    assert progress["done_bytes"] == progress["total_bytes"] == 2 * sum(asset.blob.size for asset in assets)
    assert [progress[name] for name in ("missing", "corrupt", "failed", "orphans", "foreign")] == [0] * 5
    after = [replica_of(line, asset, "main") for asset in assets]
    assert after == before
    assert all(new.verified_at > old.verified_at for new, old in zip(after, before, strict=True))  # type: ignore[operator]  # both are there
    assert verdict(line.services, job).good


def test_what_is_missing_wrong_or_short_is_made_anew_from_a_good_one(
    line: Line, assets: list[Asset], tmp_path: Path
) -> None:
    gone, bad, short = (replica_of(line, asset, "main") for asset in assets[:3])
    file_of(tmp_path, gone).unlink()
    wrong(tmp_path, bad)
    file_of(tmp_path, short).write_bytes(b"short")
    job = verify(line)
    found = [job.progress[name] for name in ("missing", "corrupt", "repaired", "failed")]
    assert found == [1, 2, 3, 0]
    assert verdict(line.services, job).good
    for asset, body in zip(assets, map(picture, range(5)), strict=True):
        assert held_by(line, asset.blob) == ["far", "main"]
        assert read(line, asset) == body


def test_structure_alone_reads_no_bytes(line: Line, assets: list[Asset], tmp_path: Path) -> None:
    gone, bad = (replica_of(line, asset, "main") for asset in assets[:2])
    file_of(tmp_path, gone).unlink()
    wrong(tmp_path, bad)
    job = verify(line, structure_only=True)
    assert [job.progress[name] for name in ("missing", "corrupt", "repaired")] == [1, 0, 1]
    assert job.progress["total_bytes"] == 0
    assert replica_of(line, assets[1], "main") == bad


def test_one_store_alone_is_looked_at(line: Line, assets: list[Asset], tmp_path: Path) -> None:
    here, there = replica_of(line, assets[0], "main"), replica_of(line, assets[1], "far")
    file_of(tmp_path, here).unlink()
    file_of(tmp_path, there).unlink()
    job = verify(line, stores=["far"])
    assert (job.progress["total"], job.progress["missing"], job.progress["repaired"]) == (5, 1, 1)
    assert replica_of(line, assets[0], "main") == here


def test_what_has_no_good_replica_is_told_and_kept(line: Line, assets: list[Asset], tmp_path: Path) -> None:
    broken = [replica_of(line, assets[0], store) for store in ("main", "far")]
    file_of(tmp_path, broken[0]).unlink()
    wrong(tmp_path, broken[1])
    left = file_of(tmp_path, broken[1])
    job = verify(line)
    assert [job.progress[name] for name in ("missing", "corrupt", "repaired", "failed")] == [1, 1, 0, 2]
    found = verdict(line.services, job)
    assert not found.good
    [lost] = found.quarantined
    assert lost.blob == assets[0].blob
    assert lost.states == {"main": "missing", "far": "corrupt"}
    assert lost.paths == ["/safe/bare/0.jpg"]
    line.collect()
    assert left.read_bytes().endswith(b"?")
    assert not verdict(line.services, verify(line)).good


def test_what_comes_back_leaves_the_quarantine(line: Line, assets: list[Asset], tmp_path: Path) -> None:
    for store in ("main", "far"):
        mark(line.services, replica_of(line, assets[0], store), "missing", "said somebody")
    job = verify(line)
    assert job.progress["repaired"] == 2
    assert verdict(line.services, job).good


@pytest.mark.parametrize("refusal", [Forbidden("403"), StoreUnavailable("it hangs")])
def test_a_store_that_does_not_answer_costs_no_replica_its_state(
    line: Line, assets: list[Asset], monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusal

    before = [replica_of(line, asset, "far") for asset in assets]
    for method in ("head", "open", "scan", "put"):
        monkeypatch.setattr(line.services.store("far"), method, refuse)
    job = verify(line)
    assert job.state is JobState.DONE
    assert job.progress["unanswered"] == ["far"]
    assert [job.progress[name] for name in ("missing", "corrupt", "failed", "done")] == [0, 0, 0, 5]
    assert [replica_of(line, asset, "far") for asset in assets] == before
    assert not verdict(line.services, job).good


def test_a_store_that_answers_again_is_gone_on_with(
    line: Line, assets: list[Asset], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, refusals = line.services.store("far"), iter(range(3))
    head = store.head

    def at_last(key: str) -> object:
        if next(refusals, None) is not None:
            raise Forbidden("403")
        return head(key)

    monkeypatch.setattr(store, "head", at_last)
    job = verify(line)
    assert (job.progress["done"], job.progress["unanswered"]) == (10, [])
    assert verdict(line.services, job).good


def test_objects_that_no_row_names_are_counted_and_stay(line: Line, assets: list[Asset]) -> None:
    store = line.services.store("main")
    for key in (f"{'ab' * 32}.1", "somebody/else.txt"):
        store.put(key, BytesIO(b""), size=0, sha256=_EMPTY, media_type="text/plain")
    job = verify(line)
    assert (job.progress["orphans"], job.progress["foreign"]) == (1, 1)
    assert verdict(line.services, job).good
    assert len(list(store.scan())) == 7


_EMPTY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_a_store_that_the_settings_do_not_name_is_told(line: Line, assets: list[Asset], tmp_path: Path) -> None:
    url = line.settings.database_url
    assert url is not None
    less = {name: options for name, options in _stores(tmp_path).items() if name != "far"}
    other = Line(tmp_path, url.get_secret_value(), stores=less)
    found = verdict(other.services, verify(other))
    assert found.unknown_stores == ["far"]
    assert not found.good
    other.close()


def test_the_oldest_is_read_first(line: Line, assets: list[Asset]) -> None:
    inventory = line.services.metadata.inventory
    for asset in (assets[3], assets[1]):
        line.services.metadata.repairs.verified(replica_of(line, asset, "main"))
    order = [one.blob.sha256 for one in inventory.stale(["main"], datetime.now(UTC), 10)]
    assert order == [assets[number].blob.sha256 for number in (0, 2, 4, 3, 1)]


@pytest.mark.parametrize("step", ["job.after-step", "verify.before-mark", "verify.after-read", "verify.after-repair"])
def test_killed_at_any_step_it_is_gone_on_with(
    line: Line, assets: list[Asset], tmp_path: Path, arm: Callable[..., None], step: str
) -> None:
    file_of(tmp_path, replica_of(line, assets[0], "main")).unlink()
    wrong(tmp_path, replica_of(line, assets[1], "far"))
    created = create(line.services, verification.KIND, {})
    arm(step, "kill")
    killed(line, tmp_path, created)
    done = go_on(line, created.id)
    assert done.state is JobState.DONE
    assert done.progress["failed"] == 0
    assert verdict(line.services, done).good
    for asset, body in zip(assets, map(picture, range(5)), strict=True):
        assert held_by(line, asset.blob) == ["far", "main"]
        assert read(line, asset) == body


@pytest.mark.parametrize(
    "arguments",
    [
        {"stores": ["nowhere"]},
        {"stores": "main"},
        {"max_mb_s": 0},
        {"max_mb_s": "1"},
        {"speed": 1},
        {"structure_only": 1},
    ],
)
def test_arguments_that_cannot_work_are_refused(line: Line, arguments: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        create(line.services, verification.KIND, arguments)


def test_it_is_slow_as_told_and_pauses_soon(line: Line, assets: list[Asset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "ROWS", 100)  # one page: a wish is heard within it
    monkeypatch.setattr(verification, "STEP_SECONDS", 100)  # and within one step, of which nothing is forgotten
    total = 2 * sum(asset.blob.size for asset in assets)

    def pause(job: Job) -> None:
        if job.progress.get("done_bytes", 0) > max(asset.blob.size for asset in assets):
            line.services.metadata.jobs.wish(job.id, "pause")

    job = verify(line, pause, max_mb_s=0.001)
    assert job.state is JobState.PAUSED
    assert 0 < job.progress["done_bytes"] < total
    line.services.metadata.jobs.wish(job.id, "resume")
    done = go_on(line, job.id)
    assert done.state is JobState.DONE
    assert done.progress["done_bytes"] == total
    assert done.started_at is not None
    assert done.finished_at is not None
    assert (done.finished_at - done.started_at).total_seconds() > 5  # the last body begins when those before are paid
