"""kill -9 of any process of the stack, under load: what was accepted is there afterwards, once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest

from tests.faults.clients import CarefulClients, picture
from tests.faults.processes import is_gone
from tests.faults.stack import SETTINGS, Stack

Victims = Callable[[Stack], list[int]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = SETTINGS.replace("workers = 1", "workers = 2")
    with Stack(tmp_path_factory.mktemp("kills"), settings=settings) as made:
        yield made


VICTIMS: dict[str, Victims] = {
    "web worker": lambda stack: stack.children("gunicorn")[:1],
    "web master": lambda stack: stack.heads("gunicorn"),
    "ingest child": lambda stack: stack.children("celery", "ingest@")[:1],
    "variants child": lambda stack: stack.children("celery", "variants@")[:1],
    "interactive child": lambda stack: stack.children("celery", "interactive@")[:1],
    "maintenance": lambda stack: stack.pids("celery", "maintenance@"),
    "worker trees": lambda stack: stack.pids("celery", "worker"),
    "beat": lambda stack: stack.pids("celery", "beat"),
    "sweep": lambda stack: stack.pids("millrace", "sweep"),
}


@pytest.mark.parametrize("victims", VICTIMS.values(), ids=[name.replace(" ", "-") for name in VICTIMS])
def test_a_killed_process_is_replaced_and_nothing_is_lost(stack: Stack, victims: Victims) -> None:
    stack.until(lambda: victims(stack), 20, "there is a process to kill")
    with CarefulClients(stack, f"kill-{len(stack.history.uploads)}") as clients:
        clients.flows()
        doomed = victims(stack)
        for pid in doomed:
            with suppress(ProcessLookupError):  # it went with its parent, which was killed before it
                os.kill(pid, signal.SIGKILL)
        stack.until(lambda: all(map(is_gone, doomed)), 10, f"{doomed} are gone")
        clients.flows()
        stack.until(lambda: set(victims(stack)) - set(doomed), 20, "another process takes the place")
    stack.check()


def test_an_orphaned_web_worker_does_not_stay(stack: Stack) -> None:
    master, workers = stack.heads("gunicorn"), stack.children("gunicorn")
    assert workers
    os.kill(master[0], signal.SIGKILL)
    stack.until(lambda: all(map(is_gone, workers)), 5, "the workers went with their master")
    stack.until(lambda: stack.request("GET", "/readyz") == 200, 20, "the web server is back")


def test_rolling_restarts_under_load(stack: Stack) -> None:
    with CarefulClients(stack, "rolling") as clients:
        workers = [("celery", f"{name}@") for name in ("ingest", "interactive", "variants", "maintenance")]
        for words in (*workers, ("celery", "beat"), ("millrace", "sweep")):
            clients.flows(3)
            [head] = stack.heads(*words)
            os.kill(head, signal.SIGTERM)
            stack.until(lambda head=head: is_gone(head), 20, f"{words} went")
            stack.until(lambda words=words, head=head: set(stack.heads(*words)) - {head}, 10, f"{words} came back")
    stack.check()


def test_a_reload_of_the_web_server_refuses_nobody(stack: Stack) -> None:
    workers = stack.children("gunicorn")
    before = len(stack.history.uploads)
    with CarefulClients(stack, "reload") as clients:
        clients.flows()
        os.kill(stack.heads("gunicorn")[0], signal.SIGHUP)
        stack.until(lambda: all(map(is_gone, workers)), 20, "the old workers went")
        clients.flows()
    assert {told.status for told in stack.history.uploads[before:]} == {202}
    stack.check()


@pytest.mark.parametrize("step", ["accept.before-fsync", "accept.after-rename", "accept.after-commit"])
def test_a_key_that_is_sent_again_after_a_kill_is_one_asset(stack: Stack, step: str) -> None:
    path = f"/once/{step}"
    armed = stack.arm(step, "kill")
    assert stack.upload(path, picture(7), key=step).status is None
    stack.until_fired(armed)
    for _ in range(3):
        stack.upload_until_accepted(path, picture(7), key=step)
    stack.check()
    assert stack.sql("SELECT count(*) FROM asset WHERE path_text = %s", path) == [(1,)]


def test_a_retry_after_a_delete_stays_deleted(stack: Stack) -> None:
    """The worker that recorded it dies before it drops its entry: entry and key are met again after the delete."""
    armed = stack.arm("ingest.after-record", "stop")
    told = stack.upload("/once/deleted", picture(8), key="deleted")
    stack.until_fired(armed)
    assert stack.request("DELETE", "/assets/once/deleted/-/entry/0") == 204
    for pid in stack.children("celery", "ingest@"):
        os.kill(pid, signal.SIGKILL)
    stack.until(lambda: not stack.world().staged["accepted"], 30, "the entry is dropped")
    again = stack.upload_until_accepted("/once/deleted", picture(8), key="deleted")
    told.deleted = again.deleted = True
    stack.check()
    assert stack.request("GET", "/assets/once/deleted") == 404


def test_a_delete_while_variants_are_made(stack: Stack) -> None:
    """Of bytes that no client sent: theirs may have their variants already, until gc takes them."""
    armed = stack.arm("derive.after-render", "sleep 2")
    told = stack.upload("/once/soon-gone", picture(50_000), key="soon-gone")
    stack.until_fired(armed)
    stack.delete(told)
    stack.check()
    stack.until(lambda: told.sha256 not in {name.split(".")[0] for name in stack.world().objects}, 20, "bytes are gone")


def test_an_innocent_entry_survives_ten_kills(stack: Stack) -> None:
    """From outside, each time in the middle of its work; after a few times it runs alone, and is killed still."""
    armed = stack.arm("ingest.after-put", "sleep 5", always=True)
    told = stack.upload("/once/innocent", picture(10))
    for kills in range(10):
        stack.until(lambda kills=kills: stack.ingest(told.upload_id).get("attempts", 0) > kills, 30, "a new attempt")
        for pid in stack.children("celery", "ingest@"):
            os.kill(pid, signal.SIGKILL)
    stack.disarm(armed)
    stack.check()
    assert "ingest runs alone" in (stack.home / "log" / "ingest.log").read_text()


def test_a_killed_supervisor_leaves_nobody_and_a_start_finds_everything(stack: Stack) -> None:
    assert stack.process is not None
    for words in (("celery", "ingest@"), ("millrace", "sweep")):
        stack.kill(*words, number=signal.SIGSTOP)
    waiting = [stack.upload(f"/waiting/{number}", picture(number)) for number in range(5)]
    everybody = stack.descendants()
    os.kill(stack.process.pid, signal.SIGKILL)
    stack.process.wait(10)
    stack.until(lambda: all(map(is_gone, everybody)), 10, "no process is left")
    stack.start()
    stack.check()
    for number, told in enumerate(waiting):
        assert told.status == 202
        assert httpx.get(f"{stack.url}/assets{told.path}/-/content").content == picture(number)


def test_an_orderly_stop_under_load_and_a_start_with_data(stack: Stack) -> None:
    with CarefulClients(stack, "restart") as clients:
        clients.flows()
        stack.stop()
        stack.start()
        clients.flows()
    stack.check()
