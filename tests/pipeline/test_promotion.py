"""Copies in a hot store of what is read from a colder one: made once, and kept within their bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import DatabaseUnavailable
from core.model import Asset, JobState, Replica, StoreState
from core.sections import Demotion, Placement, Work
from pipeline import connections, maintenance
from pipeline.jobs import verification
from pipeline.replicas import repair
from pipeline.stores import read_tracking, states
from pipeline.stores.read_tracking import NoAccesses, WrittenAccesses
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import run
from tests.pipeline.line import WORK, Line
from tests.pipeline.test_placement import held_by, lined, read, stores

PICTURE = encoded(photo(320, 240), "JPEG")
HOT: dict[str, Any] = {"tier": "hot", "promote_up_to": "1MiB"}


def tiered(home: Path, database_url: str, **hot: Any) -> Line:
    return lined(home, database_url, Placement(store="far"), far={"tier": "cold"}, fast={**HOT, **hot})


@pytest.fixture
def line(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """It writes when it is told to, and knows at once what is said of stores."""
    monkeypatch.setattr(read_tracking, "WRITE_SECONDS", 3600.0)
    monkeypatch.setattr(states, "STATES_SECONDS", 0.0)
    made = tiered(tmp_path, database_url)
    yield made
    made.close()


def write(line: Line) -> None:
    """What the thread does every few seconds."""
    assert isinstance(line.services.accesses, WrittenAccesses)
    line.services.accesses.write()


def pictures(line: Line, count: int) -> list[Asset]:
    return [line.bring(f"/bare/{number}.jpg", encoded(photo(40 + number, 30), "JPEG")) for number in range(count)]


def promoted(line: Line, *assets: Asset) -> list[Asset]:
    for asset in assets:
        read(line, asset)
    write(line)
    assert repair.repair(line.services) == len(assets)
    return list(assets)


def copies(line: Line) -> list[Replica]:
    return [one for one in line.services.metadata.stores.page("fast", b"", 100) if one.promoted]


def served_from(line: Line, asset: Asset, monkeypatch: pytest.MonkeyPatch) -> str:
    noted: list[Replica] = []
    with monkeypatch.context() as patch:
        patch.setattr(line.services.accesses, "note", noted.append)
        assert len(read(line, asset)) == asset.blob.size
    [one] = noted
    return one.store


def test_what_is_read_from_a_colder_store_is_read_from_the_hot_one_next(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asset] = pictures(line, 1)
    assert served_from(line, asset, monkeypatch) == "far"
    promoted(line, asset)
    assert held_by(line, asset.blob) == ["far", "fast"]
    assert served_from(line, asset, monkeypatch) == "fast"
    read(line, asset)
    write(line)
    assert repair.repair(line.services) == 0


def test_a_process_whose_cache_is_older_than_the_copy_learns_of_it(
    line: Line, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [asset] = pictures(line, 1)
    other = tiered(tmp_path, database_url)
    read(other, asset)
    promoted(line, asset)
    assert served_from(other, asset, monkeypatch) == "far"
    write(other)
    assert served_from(other, asset, monkeypatch) == "fast"
    other.close()


def test_copying_and_checking_are_not_reading(line: Line) -> None:
    [asset] = pictures(line, 1)
    line.services.metadata.repairs.ensure(asset.blob.sha256, "main", repair.LEASE)
    assert run(line, verification.KIND).state is JobState.DONE
    assert held_by(line, asset.blob) == ["far", "main"]
    write(line)
    assert copies(line) == []


@pytest.mark.parametrize(
    ("hot", "larger", "smaller"),
    [
        ({"promote_up_to": 20 * len(PICTURE)}, True, True),
        ({"promote_up_to": 5 * len(PICTURE)}, False, True),
        ({"promote_up_to": 5 * len(PICTURE), "promote_max_bytes": len(PICTURE)}, True, True),
        ({"promote_up_to": 20 * len(PICTURE), "promote_max_bytes": 10}, False, False),
    ],
)
def test_an_object_may_take_a_tenth_of_the_room_or_what_settings_say(
    tmp_path: Path, database_url: str, hot: dict[str, Any], larger: bool, smaller: bool
) -> None:
    line = tiered(tmp_path, database_url, **hot)
    assets = [line.bring("/bare/large.jpg", PICTURE), *pictures(line, 1)]
    for asset in assets:
        read(line, asset)
    write(line)
    found = {one.blob.sha256 for one in copies(line)}
    assert [asset.blob.sha256 in found for asset in assets] == [larger, smaller]
    line.close()


def test_the_bound_of_the_settings_is_kept_by_what_was_read_longest_ago(tmp_path: Path, database_url: str) -> None:
    line = tiered(tmp_path, database_url)
    assets = pictures(line, 3)
    line.close()
    size = max(asset.blob.size for asset in assets)
    line = tiered(tmp_path, database_url, promote_up_to=2 * size, promote_max_bytes=size)
    for asset in assets:
        promoted(line, asset)
    assert {one.blob.sha256 for one in copies(line)} == {asset.blob.sha256 for asset in assets[1:]}
    maintenance.collect_garbage(line.services)
    assert len(list(line.services.store("fast").scan())) == 2
    assert held_by(line, assets[0].blob) == ["far"]
    line.close()


def test_copies_go_when_the_store_takes_fewer_or_none_any_more(line: Line, tmp_path: Path, database_url: str) -> None:
    sizes = sorted(asset.blob.size for asset in promoted(line, *pictures(line, 3)))
    for options, left in (({"promote_up_to": sum(sizes) - 1}, 2), ({"promote_up_to": None}, 0)):
        other = tiered(tmp_path, database_url, **options)
        other.put_rules_in_force()
        maintenance.evict_copies(other.services)
        assert len(copies(other)) == left
        maintenance.collect_garbage(other.services)
        assert len(list(other.services.store("fast").scan())) == left
        other.close()


@pytest.mark.parametrize(("state", "left"), [("draining", 0), ("read-only", 1)])
def test_a_hot_store_that_takes_nothing_new_takes_no_copies(line: Line, state: str, left: int) -> None:
    one, other = pictures(line, 2)
    promoted(line, one)
    line.services.metadata.stores.set_state(StoreState("fast", state, None))
    read(line, other)
    write(line)
    maintenance.evict_copies(line.services)
    assert len(copies(line)) == left


def test_another_hot_store_takes_copies_where_the_first_drains(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "STATES_SECONDS", 0.0)
    line = lined(tmp_path, database_url, Placement(store="far"), far={"tier": "cold"}, fast=HOT, main=HOT)
    first, second = pictures(line, 2)
    for asset, state in ((first, "active"), (second, "draining")):
        line.services.metadata.stores.set_state(StoreState("fast", state, None))
        read(line, asset)
        write(line)
    assert [one.blob.sha256 for one in copies(line)] == [first.blob.sha256]
    assert [one.blob.sha256 for one in line.services.metadata.stores.page("main", b"", 9)] == [second.blob.sha256]
    line.close()


def test_settings_that_drain_a_hot_store_promote_nothing(tmp_path: Path, database_url: str) -> None:
    line = tiered(tmp_path, database_url, state="draining")
    assert isinstance(line.services.accesses, NoAccesses)
    line.close()


def test_notes_are_taken_only_where_something_depends_on_them(tmp_path: Path, database_url: str) -> None:
    def kind(*rules: Demotion, **hot: Any) -> type:
        made = Line(tmp_path, database_url, stores=stores(tmp_path, fast={"tier": "hot", **hot}), demotion=rules)
        made.close()
        return type(made.services.accesses)

    rule = {"from": "fast", "to": "far"}
    assert kind() is NoAccesses
    assert kind(Demotion(**rule, older_than_days=1)) is NoAccesses
    assert kind(Demotion(**rule, unread_days=1)) is WrittenAccesses
    assert kind(promote_up_to="1GiB") is WrittenAccesses


def test_the_doctor_counts_the_connection_of_those_who_note(line: Line, tmp_path: Path) -> None:
    bare = line.settings.model_copy(update={"stores": stores(tmp_path)})
    work = bare.work
    rendering = work.interactive_concurrency + work.variants_concurrency
    processes = bare.web.workers + work.ingest_concurrency + rendering + 2  # maintenance and the sweep
    assert connections.of_host(line.settings) == connections.of_host(bare) + processes


def test_last_reads_are_as_coarse_as_the_settings_say(tmp_path: Path, database_url: str) -> None:
    def reads(seconds: float) -> list[Any]:
        work = WORK.model_copy(update={"last_read_seconds": seconds})
        line = Line(tmp_path, database_url, stores=stores(tmp_path, fast=HOT), work=Work.model_validate(work))
        asset = line.bring("/bare/a.jpg", PICTURE)
        found = []
        for _ in range(2):
            read(line, asset)
            write(line)
            with line.services.metadata.database._ensure_own().engine.connect() as connection:
                found.append(connection.exec_driver_sql("SELECT last_read_at FROM blob").scalar())
        line.close()
        return found

    first, second = reads(600)
    assert first == second is not None
    third, fourth = reads(0)
    assert second < third < fourth


def test_notes_are_written_by_themselves_and_whoever_copies_is_waked(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_tracking, "WRITE_SECONDS", 0.01)
    line = tiered(tmp_path, database_url)
    assert isinstance(line.services.accesses, WrittenAccesses)
    waked: list[None] = []
    monkeypatch.setattr(line.services.accesses, "_hasten", lambda: waked.append(None))
    [asset] = pictures(line, 1)
    read(line, asset)
    until(lambda: waked and copies(line))
    read(line, asset)
    time.sleep(0.1)
    assert waked == [None], "nothing new was wished for"
    line.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_postgresql_a_note_costs_nothing_and_is_lost(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_tracking, "WRITE_SECONDS", 0.01)
    away = Line(line.settings.home / "away", "postgresql://nobody@127.0.0.1:1/nothing")
    tries: list[None] = []
    tiers = away.services.metadata.tiers
    monkeypatch.setattr(type(tiers), "read", counted(type(tiers).read, tries))
    noting = WrittenAccesses(
        away.services.metadata, away.services.lookups, line.services.placements, repair.LEASE, lambda: None
    )
    [asset] = pictures(line, 1)
    [served] = line.services.metadata.blobs.replicas(asset.blob.sha256)

    def tried() -> bool:
        noting.note(served)
        return len(tries) > 2

    until(tried)
    noting.note(served)
    with pytest.raises(DatabaseUnavailable):
        noting.write()
    noting.close()
    away.close()


def counted(call: Callable[..., Any], calls: list[None]) -> Callable[..., Any]:
    def wrapped(*given: Any) -> Any:
        calls.append(None)
        return call(*given)

    return wrapped


def test_notes_are_bounded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_tracking, "CAPACITY", 2)
    assets = pictures(line, 3)
    for asset in assets:
        read(line, asset)
    write(line)
    assert {one.blob.sha256 for one in copies(line)} == {asset.blob.sha256 for asset in assets[:2]}
