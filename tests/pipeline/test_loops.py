"""Every loop of the product meets an error that its code does not foresee, and turns again.

Which loops there are is read from the sources: a new one has no driver here, and a thread that is made past
`core/loops.py` is none of these. Those of the supervisor are in tests/cli/test_supervisor.py.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery, Task
from uuid_utils.compat import uuid4

from app.threads import Threads
from coordination.leased_locks import LeasedLocks
from core.model import VariantState
from core.queues import BEAT
from pipeline.copies import keeper
from pipeline.jobs.live_progress import LiveProgress
from pipeline.renewal import Renewal
from pipeline.stores.read_tracking import WrittenAccesses
from pipeline.uploads import ingest_loop
from pipeline.uploads.sweep import Sweep
from pipeline.variants.waiting import VariantWaits
from tasks import base, derive, ingest, maintenance, reading
from tasks.clock import Clock
from tasks.hints import CeleryHints
from tasks.lanes import Lane
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_sweep import Recorder
from tests.rooms import ROOMS, ROOT

Drive = Callable[[Line, ExitStack], Callable[[], object]]
"""Starts a real loop, and returns what has it turn, called again and again."""


def hints(line: Line, stack: ExitStack) -> Callable[[], object]:
    nowhere = Celery("test", broker="memory://", set_as_current=False)
    made = CeleryHints(nowhere, line.settings, uuid4())
    stack.callback(made.close)
    return made.repair


def accesses(line: Line, stack: ExitStack) -> Callable[[], object]:
    asset = line.bring("/bare/a.jpg", PICTURE)
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    made = WrittenAccesses(
        line.services.metadata, line.services.lookups, line.services.placements, timedelta(0), lambda: None
    )
    stack.callback(made._writer.close, 10)  # `close` ends the metadata of all, too
    return lambda: made.note(replica)


def waits(line: Line, stack: ExitStack) -> Callable[[], object]:
    made = VariantWaits(lambda asked: dict.fromkeys(asked, VariantState.READY))
    return lambda: made.wait(uuid4(), 0.5)


def renewal(line: Line, stack: ExitStack) -> Callable[[], object]:
    stack.enter_context(Renewal(line.services, lambda: True, {}))
    return lambda: None


def live_progress(line: Line, stack: ExitStack) -> Callable[[], object]:
    job = line.services.metadata.jobs.create("verify", {})
    held = line.services.metadata.jobs.take(timedelta(minutes=1), job.id)
    assert held is not None
    stack.enter_context(LiveProgress(line.services, held, timedelta(minutes=1), lambda _: None))
    return lambda: None


def local_copies(line: Line, stack: ExitStack) -> Callable[[], object]:
    made = keeper(line.services)
    made._seconds = made._first = 0.05
    stack.callback(made.close, 10)
    return made.start


def lock_renewal(line: Line, stack: ExitStack) -> Callable[[], object]:
    table = SimpleNamespace(take=lambda *_: True, extend=lambda *_: True, free=lambda *_: True, close=lambda: None)
    lease = LeasedLocks(table, ttl=60, max_retries=0, retry_delay_ms=1, renew_seconds=0.05).acquire("a")
    stack.callback(lease.release)
    return lambda: None


def heartbeat(line: Line, stack: ExitStack) -> Callable[[], object]:
    made = Sweep(line.services, Recorder()).heartbeat
    stack.callback(made.close, 10)
    return made.start


def sweep(line: Line, stack: ExitStack) -> Callable[[], object]:
    return Sweep(line.services, Recorder()).run


def lane(line: Line, stack: ExitStack) -> Callable[[], object]:
    return lambda: ingest_loop.drain(line.services, line.accept("/bare/a.jpg", PICTURE).id)


def work_lane(line: Line, stack: ExitStack) -> Callable[[], object]:
    made = Lane(1)
    stack.callback(made.close)
    return lambda: made.put("a", lambda: None)


def idle_connections(line: Line, stack: ExitStack) -> Callable[[], object]:
    return line.services.metadata.ping


def request(line: Line, stack: ExitStack) -> Callable[[], object]:
    made = Threads[None](1, lambda _: None)
    return lambda: made.give(None, busy=1)


def queue_readers(line: Line, stack: ExitStack) -> Callable[[], object]:
    return reading.Reader(line.settings, [BEAT]).speak


def beat(line: Line, stack: ExitStack) -> Callable[[], object]:
    made = Clock(app=Celery("test", broker="memory://", set_as_current=False), lazy=True)
    made._listens = True  # the signals stay with the test
    return made.tick


LOOPS: dict[str, Drive | str] = {
    "accesses": accesses,
    "beat": beat,
    "heartbeat": heartbeat,
    "hints": hints,
    "idle-connections": idle_connections,
    "ingest-lane": lane,
    "lane": work_lane,
    "lease-renewal": renewal,
    "live-progress": live_progress,
    "local-copies": local_copies,
    "lock-renewal": lock_renewal,
    "supervisor.children": "tests/cli/test_supervisor.py",
    "supervisor.logs": "tests/cli/test_supervisor.py",
    "supervisor.parent": "tests/cli/test_supervisor.py",
    "queue-readers": queue_readers,
    "request": request,
    "sweep.broken": sweep,
    "sweep.failures": sweep,
    "sweep.hint": sweep,
    "sweep.incoming": sweep,
    "sweep.trash": sweep,
    "sweep.wishes": sweep,
    "variant-waits": waits,
    "web": "tests/app/test_main_loop.py",
}

ONE_CALL = {
    "app/threads.py": "a thread of requests, which turns in a guard",
    "app/health.py": "asks one dependency once, and reports whatever happens",
    "millrace_client/bulk_upload.py": "of a client: its error ends the command with its words",
    "cli/first_run.py": "sends the examples once",
    "core/silence.py": "one look, which logs what it did not foresee",
    "pipeline/doctor/examine.py": "one question, whose failure is a finding",
    "pipeline/uploads/ingest_loop.py": "one turn, whose steps are guarded",
    "pipeline/stores/failover.py": "one opening, whose error is raised by the one who waits",
    "pipeline/isolation/watchdog.py": "one kill",
    "storage/s3/multipart.py": "one request that is not waited for",
    "tasks/base.py": "gives back what was begun, once, when the process ends",
}
"""Threads that end with what they were started for, and why no error in them stops anything else."""

PICTURE = encoded(photo(), "JPEG")


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yield every call in the product: the file, the last word of what is called, and the call."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    yield str(path.relative_to(ROOT)), called, node


def test_every_loop_of_the_product_is_driven_here() -> None:
    names = set()
    for path, called, call in calls():
        if called in ("Guard", "Background") and path not in ("core/loops.py", "tasks/base.py"):
            assert isinstance(call.args[0], ast.Constant), f"{path}:{call.lineno}: name the loop by a literal"
            names.add(call.args[0].value)
    assert names == set(LOOPS)
    for name, where in LOOPS.items():
        if isinstance(where, str):
            assert name in (ROOT / where).read_text()


def test_every_task_meets_an_error_and_is_done_again(
    line: Line,
    arm: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run every task into an error: their guard is in tasks/base.py, and the tasks are read from the sources."""
    monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://127.0.0.1:1/0")  # read at the first look at a task
    monkeypatch.setenv("MILLRACE_HOME", str(line.settings.home))
    line.services.installation.ask()
    monkeypatch.setattr(base, "_services", line.services)
    names = {str(ast.literal_eval(call.keywords[0].value)) for _, called, call in calls() if called == "task"}
    found = [one for module in (derive, ingest, maintenance) for one in vars(module).values()]
    tasks = {one.name: one for one in found if isinstance(one, Task)}
    assert names == set(tasks)
    arguments = {"ingest": [str(uuid4())], "derive": ["00" * 32]}
    for name in sorted(names):
        for action in ("raise", "sleep 0"):
            arm(f"loop.turn@task.{name}", action)
            tasks[name](*arguments.get(name, []))
            assert not (tmp_path / "failpoints" / f"loop.turn@task.{name}").exists()
        [said] = [one for one in caplog.records if one.message == f"task.{name} failed and goes on"]
        assert said.exc_info is not None


def test_no_thread_of_the_product_is_made_past_the_loops() -> None:
    made = {path for path, called, _ in calls() if called in ("Thread", "Timer") and path != "core/loops.py"}
    assert made == set(ONE_CALL)


@pytest.mark.parametrize("name", [name for name, drive in LOOPS.items() if callable(drive)])
def test_it_turns_again(
    line: Line, arm: Callable[..., None], tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    drive = LOOPS[name]
    assert callable(drive)
    point = f"loop.turn@{name}"
    with ExitStack() as stack:
        turn = drive(line, stack)
        for action in ("raise", "sleep 0"):
            arm(point, action)
            deadline = time.monotonic() + 60
            while (tmp_path / "failpoints" / point).exists():
                assert time.monotonic() < deadline, f"{name} does not turn any more"
                turn()
                time.sleep(0.02)
    [said] = [one for one in caplog.records if one.message == f"{name} failed and goes on"]
    assert said.exc_info is not None
