"""Pictures that kill or hang whoever touches them, and holders that wake up late: each hurts itself only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.faults.clients import picture
from tests.faults.history import Told
from tests.faults.processes import state_of
from tests.faults.stack import ROOT, SETTINGS, Stack

SHORT = SETTINGS.replace("solo_seconds = 8", "solo_seconds = 12").replace("lease_seconds = 4", "lease_seconds = 3")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("poison"), settings=SHORT) as made:
        yield made


def test_poison_ends_in_quarantine_while_others_flow_and_a_retry_revives_it(stack: Stack) -> None:
    with stack.stopped("celery", "ingest@"):  # nobody touches them before the poison is in
        crashing, hanging = upload(stack, "/poison/crashing", 1), upload(stack, "/poison/hanging", 2)
        poison = [
            stack.arm("ingest.after-start", "kill", subject=crashing.upload_id, always=True),
            stack.arm("ingest.after-start", "sleep 600", subject=hanging.upload_id, always=True),
        ]
        others = [upload(stack, f"/poison/{number}", number) for number in range(10, 22)]
    stack.until(lambda: all(state(stack, told) == "ready" for told in others), 60, "the others are ready")
    for told, reason in ((crashing, "crashed"), (hanging, "timed-out")):
        stack.until(lambda told=told: state(stack, told) == "failed", 90, f"{told.path} failed")
        assert stack.ingest(told.upload_id)["failure"]["class"] == reason
    stack.check(expect_failed={crashing.upload_id, hanging.upload_id})  # type: ignore[arg-type]  # both were accepted

    for armed in poison:
        stack.disarm(armed)
    for told in (crashing, hanging):
        assert stack.request("POST", f"/failures/{told.upload_id}/retry") == 202
    stack.until(lambda: {state(stack, told) for told in (crashing, hanging)} == {"ready"}, 60, "both are ready")
    stack.check()


def test_a_variant_that_kills_its_process_fails_alone(stack: Stack) -> None:
    """First with its neighbour, from one decode; then each by itself, so that the neighbour is ready."""
    with stack.stopped("celery", "ingest@"):
        told = upload(stack, "/poison/variant", 3)
        fired = stack.arm("ingest.after-drop", "sleep 2", subject=told.upload_id)
    stack.until_fired(fired)  # the rows are there, the rendering has not begun
    poison = stack.sql("SELECT variant_id FROM asset_variant WHERE profile = 'thumb' AND asset_id = %s", told.asset_id)
    armed = stack.arm("derive.after-render", "kill", subject=poison[0][0], always=True)

    stack.until(lambda: state(stack, told) == "ready", 90, "every variant has ended")
    shown = {one["profile"]: one for one in stack.ingest(told.upload_id)["variants"]}
    assert (shown["thumb"]["state"], shown["square"]["state"]) == ("failed", "ready")
    assert shown["thumb"]["failure"]["class"] == "crashed"
    asset = f"{stack.url}/assets/poison/variant/-/content"
    assert httpx.get(asset).content == picture(3)
    assert httpx.get(f"{asset}?profile=square").status_code == 200
    assert 400 <= httpx.get(f"{asset}?profile=thumb").status_code < 600
    failures = httpx.get(f"{stack.url}/failures").json()["failures"]
    assert [(one["id"], one["subject"]) for one in failures] == [(shown["thumb"]["id"], "variant")]

    stack.disarm(armed)
    assert stack.request("POST", f"/failures/{shown['thumb']['id']}/retry") == 204
    stack.until(lambda: httpx.get(f"{asset}?profile=thumb", timeout=15).status_code == 200, 30, "the retry made it")
    stack.check()


@pytest.mark.parametrize("step", ["derive.after-lease", "derive.after-render", "derive.after-put"])
def test_hung_holders_are_taken_over_and_write_nothing_when_they_wake(stack: Stack, step: str) -> None:
    """Two hang, one after the other. The first wakes while the second still has the variant: only the fence tells."""
    path = f"/bare/{step}"
    assert stack.upload(path, picture(30 + len(step)), wait=20).status == 201
    first = stack.arm(step, "stop")
    stack.request("GET", f"/assets{path}/-/content?w=30", timeout=1)
    stack.until_fired(first)
    [early] = sleepers(stack, 1)
    stack.until_fired(stack.arm(step, "stop"))
    [late] = set(sleepers(stack, 2)) - {early}
    assert wake(stack, early) == "nothing written"
    stack.until(lambda: variant(stack, path)["state"] == "ready", 30, "a third lease made it")
    before = variant(stack, path)
    assert wake(stack, late) == "nothing written"
    assert variant(stack, path) == before
    assert before["fence"] == 3
    stack.check()


def test_a_gc_that_wakes_late_deletes_nothing_that_lives(stack: Stack) -> None:
    """It stops with the old key in its hand; the same bytes come again, and are stored under another."""
    body = picture(40)
    told = stack.upload("/bare/first", body, wait=20)
    armed = stack.arm("gc.before-delete", "stop")
    stack.delete(told)
    stack.until_fired(armed)
    [stale] = sleepers(stack, 1)
    again = stack.upload("/bare/second", body, wait=20)
    assert again.status == 201
    with another_maintenance(stack):
        stack.until(lambda: not stack.world().garbage, 60, "another gc cleared up")
    deleted = stack.arm("gc.after-delete", "sleep 0")  # with nothing left to clear up, the late one alone comes there
    os.kill(stale, signal.SIGCONT)
    stack.until_fired(deleted)
    stack.check()
    assert httpx.get(f"{stack.url}{again.location}/content").content == body


def test_a_task_that_ends_its_process_again_and_again_rests_and_stops_no_other(stack: Stack) -> None:
    armed = stack.arm("gc.after-collect", "kill", always=True)
    task = "task.maintenance.collect_garbage"
    stack.until(lambda: task in background(stack), 120, "it rests, and /readyz names it")
    told = stack.upload("/poison/beside", picture(50), wait=20)
    assert told.status == 201
    assert httpx.get(f"{stack.url}/readyz").status_code == 200
    stack.disarm(armed)
    stack.until(lambda: task not in background(stack), 60, "it is well again")
    stack.check()


@pytest.mark.parametrize("table", ["host", "job", "variant"])
def test_an_answer_of_postgres_that_nobody_foresaw_ends_nothing_and_shows(stack: Stack, table: str) -> None:
    """Refuse writes as for a missing right or a damaged index: the door stays open, and all goes on once it is
    mended."""
    web = stack.heads("gunicorn")
    stack.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'nobody foresaw this'; END $$"
    )
    stack.sql(f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION refuse()")
    try:
        told = [stack.upload(f"/poison/{table}/{number}", picture(60 + number)) for number in range(8)]
        if table == "host":
            stack.until(lambda: "heartbeat" in background(stack), 60, "/readyz names the heartbeat")
        assert {one.status for one in told} == {202}
        assert stack.heads("gunicorn") == web
    finally:
        stack.sql(f"DROP TRIGGER refuse ON {table}")
        stack.sql("DROP FUNCTION refuse")
    stack.until(lambda: "heartbeat" not in background(stack), 90, "the heart beats again")
    stack.until(lambda: all(state(stack, one) == "ready" for one in told), 90, "all are ready")
    stack.check()


def background(stack: Stack) -> str:
    """Return what `/readyz` says fails again and again; nothing while no answer comes."""
    with suppress(httpx.HTTPError):
        one = httpx.get(f"{stack.url}/readyz", timeout=5).json()["dependencies"]["background"]
        return "" if one["ok"] else str(one["detail"])
    return ""


def upload(stack: Stack, path: str, number: int) -> Told:
    told = stack.upload(path, picture(number))
    assert told.status == 202
    return told


def state(stack: Stack, told: Told) -> Any:
    return stack.ingest(told.upload_id).get("state")


@contextmanager
def another_maintenance(stack: Stack) -> Iterator[None]:
    """Run maintenance as another host would: it stops at no failpoint."""
    environment = {name: value for name, value in stack.environment.items() if name != "MILLRACE_FAILPOINTS"}
    process = subprocess.Popen([sys.executable, "-m", "cli", "worker", "maintenance"], cwd=ROOT, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def sleepers(stack: Stack, count: int) -> list[int]:
    """Wait until `count` processes stopped themselves, and return their pids: children of workers that render, or the
    process of maintenance."""

    def found() -> list[int]:
        children = stack.children("celery", "variants@") + stack.children("celery", "interactive@")
        return [pid for pid in children + stack.heads("celery", "maintenance@") if state_of(pid) == "T"]

    stack.until(lambda: len(found()) == count, 10, f"{count} stopped")
    return found()


def wake(stack: Stack, stale: int) -> str:
    """Let a stale holder go on to the end of its rendering, and say what came of it by its own account."""
    seen = ends(stack)
    os.kill(stale, signal.SIGCONT)
    stack.until(lambda: len(ends(stack)) > len(seen), 30, "the stale holder comes to its end")
    last = next(one for one in ends(stack) if one not in seen)
    return "nothing written" if last["ready"] == 0 else "it wrote"


def ends(stack: Stack) -> list[dict[str, Any]]:
    logs = [(stack.home / "log" / f"{name}.log").read_text() for name in ("variants", "interactive")]
    lines = [json.loads(line) for log in logs for line in log.splitlines() if line.startswith("{")]
    return [said for said in lines if said.get("message") == "variants ready"]


def variant(stack: Stack, path: str) -> dict[str, Any]:
    """The only variant of the only asset at `path`."""
    query = (
        "SELECT v.state, v.fence, v.attempts, v.blob, v.finished_at FROM variant v JOIN asset a ON a.blob = v.source"
    )
    [found] = stack.sql(f"{query} WHERE a.path_text = %s", path)
    return dict(zip(("state", "fence", "attempts", "blob", "finished_at"), found, strict=True))
