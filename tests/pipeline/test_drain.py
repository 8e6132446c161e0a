from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from pipeline.uploads import ingest, ingest_loop
from pipeline.variants import derive
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(), "JPEG")


def test_one_wake_up_is_enough_for_all_that_came_after(line: Line) -> None:
    manifests = [line.accept(f"/{number}.jpg", PICTURE + bytes([number])) for number in range(9)]
    ingest_loop.drain(line.services, manifests[0].id)
    assert line.due() == []
    for manifest in manifests:
        assert line.services.metadata.assets.by_id(manifest.asset_id) is not None


def test_a_turn_ends_and_leaves_the_rest(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = [line.accept(f"/{number}.jpg", PICTURE) for number in range(3)]
    monkeypatch.setattr(ingest_loop, "TURN_SECONDS", -1)
    ingest_loop.drain(line.services, manifests[0].id)
    assert line.due() == [manifest.id for manifest in manifests]


def test_one_that_fails_does_not_stop_the_others(line: Line, arm: Callable[..., None]) -> None:
    manifests = [line.accept(f"/{number}.jpg", PICTURE) for number in range(6)]
    arm(f"ingest.after-start@{manifests[1].id}", "errno EIO")
    ingest_loop.drain(line.services, manifests[0].id)
    recorded = [one for one in manifests if line.services.metadata.assets.by_id(one.asset_id)]
    assert recorded == [manifests[0], *manifests[2:]]


def test_with_a_dependency_away_the_rest_is_let_alone(line: Line) -> None:
    manifests = [line.accept(f"/{number}.jpg", PICTURE) for number in range(20)]
    (line.settings.home / "store").write_text("no directory")
    ingest_loop.drain(line.services, manifests[0].id)
    tried = [entry for one in manifests if (entry := line.services.staging.look(one.id)) and entry.attempts.total]
    assert 1 <= len(tried) <= ingest_loop.LANES


def test_who_is_told_to_go_finishes_what_it_began(
    line: Line, arm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = [line.accept(f"/{number}.jpg", PICTURE) for number in range(4)]
    arm("ingest.after-put", "sleep 0.5")
    original = ingest_loop.ingest

    def leave(services: object, upload_id: object) -> object:
        if upload_id == manifests[1].id:
            raise SystemExit
        return original(services, upload_id)  # type: ignore[arg-type]  # as drain gives them

    monkeypatch.setattr(ingest_loop, "ingest", leave)
    monkeypatch.setattr(ingest_loop, "LANES", 1)
    with pytest.raises(SystemExit):
        ingest_loop.drain(line.services, manifests[0].id)
    for manifest in manifests:
        entry = line.services.staging.look(manifest.id)
        assert entry is None or not entry.attempts.running


@pytest.mark.parametrize("step", ["ingest.after-start", "ingest.after-put", "derive.after-render"])
def test_an_orderly_end_gives_back_what_every_lane_has_begun(
    line: Line, arm: Callable[..., None], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Let the other lane's work take longer than the process that ends waits for it."""
    manifests = [line.accept(f"/{number}.jpg", PICTURE + bytes([number])) for number in range(2)]
    monkeypatch.setattr(ingest_loop, "LEAVE_SECONDS", 0.1)
    monkeypatch.setattr(derive, "_one_at_a_time", nullcontext())
    go_on, stuck = threading.Event(), threading.Event()
    module = derive if step.startswith("derive") else ingest

    def meet(name: str, subject: object = "") -> None:
        if name != step:
            return
        if threading.current_thread() is threading.main_thread():
            assert stuck.wait(20)
            raise SystemExit
        stuck.set()
        go_on.wait(20)

    monkeypatch.setattr(module, "failpoint", meet)
    with pytest.raises(SystemExit):
        ingest_loop.drain(line.services, manifests[0].id)
    for manifest in manifests:
        entry = line.services.staging.look(manifest.id)
        assert entry is None or (entry.attempts.unfinished, entry.attempts.running) == (0, False)
        for variant in line.services.metadata.variants.of_asset(manifest.asset_id):
            assert variant.attempts == 0
    before = threading.active_count()
    go_on.set()
    while threading.active_count() >= before:  # the lane's process would have ended
        time.sleep(0.01)


def test_a_lane_goes_on_after_an_error_that_nobody_foresaw_and_ends_after_three(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = [line.accept(f"/{number}.jpg", PICTURE) for number in range(12)]
    tried: list[object] = []
    failing = {manifests[1].id, manifests[3].id, *(one.id for one in manifests[5:])}

    def stumble(services: object, upload_id: object) -> object:
        tried.append(upload_id)
        if upload_id in failing:
            raise RuntimeError("nobody foresaw this")
        return ingest.Outcome.STORED

    monkeypatch.setattr(ingest_loop, "ingest", stumble)
    monkeypatch.setattr(ingest_loop, "LANES", 1)
    ingest_loop.drain(line.services, manifests[0].id)
    assert tried == [one.id for one in manifests[: 5 + ingest_loop.FAILURES]]
