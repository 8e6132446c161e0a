"""`millrace ingest` against a scripted service: names, retries, reasons, exit codes. The real one: test_bulk.py."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result

from cli.ingest import ingest
from millrace_client.bulk_upload import SENDINGS
from millrace_client.sources import find
from tests.cli.service import Answer, Seen, running

READY: dict[str, Any] = {"state": "ready", "failure": None, "variants": []}


def accept(seen: Seen) -> Answer:
    """Takes everything, and says at once that it is ready."""
    if seen.method == "POST":
        upload = hashlib.sha256(seen.target.encode()).hexdigest()[:8]
        return 202, {}, {"id": upload, "links": {"self": f"/ingests/{upload}?at=here"}}
    return 200, {}, READY


def run(url: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(ingest, [*map(str, arguments), "--url", url])


def told(result: Result) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(result.stdout)
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    (made / "inner").mkdir(parents=True)
    (made / "one.jpg").write_bytes(b"first")
    (made / "inner" / "two.jpg").write_bytes(b"second")
    (made / ".hidden").write_bytes(b"third")
    return made


def test_sends_every_file_below_the_directory_under_its_own_path(folder: Path) -> None:
    with running(accept) as service:
        result = run(service.url, folder, "--into", "/catalog/shoes/", "--json")
    assert result.exit_code == 0
    sent = {one.target: one.body for one in service.posts()}
    assert sent == {
        "/assets/catalog/shoes/one.jpg": b"first",
        "/assets/catalog/shoes/inner/two.jpg": b"second",
        "/assets/catalog/shoes/.hidden": b"third",
    }
    said = told(result)
    assert (said["files"], said["bytes"], said["ready"], said["failed"]) == (3, 16, 3, 0)
    assert (said["waiting"], said["unsent"], said["failures"]) == (0, 0, [])


def test_sends_the_length_and_the_digest_and_never_a_chunked_body(folder: Path) -> None:
    with running(accept) as service:
        run(service.url, folder / "one.jpg", "--into", "x")
    [post] = service.posts()
    assert post.target == "/assets/x/one.jpg"
    assert post.headers["Content-Length"] == "5"
    assert "Transfer-Encoding" not in post.headers
    digest = base64.b64encode(hashlib.sha256(b"first").digest()).decode()
    assert post.headers["Content-Digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize("name", ["a b.jpg", "50%41.jpg", "what?.jpg", "no#1.jpg", "a+b&c=d;e.jpg", "back\\slash", "ü"])
def test_names_arrive_as_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with running(accept) as service:
        run(service.url, tmp_path / name, "--into", "/in to/")
    [post] = service.posts()
    assert unquote(post.target) == f"/assets/in to/{name}"
    assert post.target.isascii()
    assert not set("?# ") & set(post.target)


def test_decomposed_names_are_composed_and_bytes_that_are_no_text_are_kept(tmp_path: Path) -> None:
    (tmp_path / "u\u0308.jpg").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    with running(accept) as service:
        run(service.url, tmp_path, "--into", "x")
    assert {one.target for one in service.posts()} == {"/assets/x/%C3%BC.jpg", "/assets/x/%FF.jpg"}


def test_a_refusal_is_reported_with_the_services_reason_and_the_others_go_on(folder: Path) -> None:
    def respond(seen: Seen) -> Answer:
        if seen.method == "POST" and seen.target.endswith(".hidden"):
            return 415, {}, {"type": "urn:millrace:problem:unsupported-type", "detail": "not \x1b[31man image"}
        return accept(seen)

    with running(respond) as service:
        as_json = run(service.url, folder, "--into", "x", "--json")
        as_table = run(service.url, folder, "--into", "x")
    said = told(as_json)
    assert as_json.exit_code == as_table.exit_code == 1
    assert (said["ready"], said["failed"]) == (2, 1)
    assert said["failures"][0]["class"] == "unsupported-type"
    assert said["failures"][0]["path"] == "/x/.hidden"
    assert "unsupported" in as_table.stdout
    assert "\x1b[31m" not in as_table.stdout


def test_waits_until_ready_and_reports_what_failed_later(folder: Path) -> None:
    asked: Counter[str] = Counter()

    def respond(seen: Seen) -> Answer:
        if seen.method == "POST":
            name = seen.target.rsplit("/", 1)[-1]
            return 202, {}, {"id": name, "links": {"self": f"/ingests/{name}"}}
        asked[seen.target] += 1
        if asked[seen.target] == 1:
            return 503, {"Retry-After": "1"}, {}
        if asked[seen.target] == 2:
            return 200, {}, {"state": "stored", "failure": None, "variants": []}
        if seen.target == "/ingests/one.jpg":
            return 200, {}, {"state": "failed", "failure": {"class": "bad-image", "detail": "truncated"}}
        if seen.target == "/ingests/two.jpg":
            broken = {"profile": "thumb", "state": "failed", "failure": {"class": "bad-image", "detail": "no colour"}}
            return 200, {}, {**READY, "variants": [broken]}
        return 200, {}, READY

    with running(respond) as service:
        result = run(service.url, folder, "--into", "x", "--json")
    said = told(result)
    assert result.exit_code == 1
    assert (said["accepted"], said["ready"], said["failed"]) == (3, 1, 2)
    reasons = {one["id"]: (one["class"], one["detail"]) for one in said["failures"]}
    assert reasons["one.jpg"] == ("bad-image", "truncated")
    assert reasons["two.jpg"][0] == "variant-failed"
    assert "thumb: no colour" in reasons["two.jpg"][1]
    assert said["seconds"] >= 1  # Retry-After


@pytest.mark.parametrize("trouble", [503, 408, None])
def test_repeats_with_the_same_key_after_the_pause_that_is_asked_for(folder: Path, trouble: int | None) -> None:
    def respond(seen: Seen) -> Answer | None:
        if seen.method == "POST" and len(service.posts()) == 1:
            return trouble and (trouble, {"Retry-After": "1"}, {})
        return accept(seen)

    with running(respond) as service:
        result = run(service.url, folder / "one.jpg", "--into", "x", "--json")
    assert result.exit_code == 0
    first, second = service.posts()
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body == b"first"
    assert trouble is None or told(result)["seconds"] >= 1


def test_the_key_means_path_and_content_in_every_run(folder: Path) -> None:
    (folder / "copy.jpg").write_bytes(b"first")
    with running(accept) as service:
        for extra in ([], [], ["--again"], ["--again"]):
            run(service.url, folder, "--into", "x", "--only", "*.jpg", *extra)
    keys = [one.headers["Idempotency-Key"] for one in service.posts()]
    assert len(keys) == 12
    assert sorted(Counter(keys).values()) == [1] * 6 + [2] * 3


def test_gives_up_when_patience_ends_and_says_what_was_not_sent(folder: Path) -> None:
    with running(lambda seen: None) as service:
        result = run(service.url, folder, "--into", "x", "--json", "--patience", "0.5", "--jobs", "1")
    said = told(result)
    assert result.exit_code == 1
    assert said["unsent"] == 3
    assert "no answer" in said["trouble"]


def test_a_wrong_address_is_said_at_once(folder: Path, free_port: int) -> None:
    result = run(f"http://127.0.0.1:{free_port}", folder, "--into", "x")
    assert result.exit_code == 1
    assert "does not answer" in str(result.exception)


def test_finds_files_and_links_to_files_and_nothing_else(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "link.jpg").symlink_to(folder / "one.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "broken").symlink_to(folder / "nothing")
    found = [one.path for one in find([folder], "/")]
    assert found == ["/.hidden", "/broken", "/inner/two.jpg", "/link.jpg", "/one.jpg"]
    with running(accept) as service:
        said = told(run(service.url, folder, "--into", "/", "--json"))
    assert (said["ready"], said["failed"]) == (4, 1)
    assert said["failures"][0]["class"] == "unreadable"


def spawn(url: str, *arguments: str | Path) -> subprocess.Popen[str]:
    measured = (  # getrusage would tell what the parent had, too: the peak survives exec there
        "import atexit, pathlib, re, sys; from cli.ingest import ingest;"
        "status = pathlib.Path('/proc/self/status');"
        "peak = lambda: re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1];"
        "atexit.register(lambda: print(peak(), file=sys.stderr)); ingest()"
    )
    command = [sys.executable, "-c", measured, *map(str, arguments), "--url", url, "--json"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(512 << 20)
    with running(accept) as service:
        child = spawn(service.url, tmp_path, "--into", "x")
        stdout, stderr = child.communicate(timeout=120)
    assert child.returncode == 0
    assert json.loads(stdout)["bytes"] == 512 << 20
    assert int(stderr.split()[-1]) < 200 << 10


def test_ctrl_c_ends_with_a_summary(folder: Path) -> None:
    arrived, leave = threading.Event(), threading.Event()

    def respond(seen: Seen) -> Answer | None:
        if seen.target == "/assets/x/.hidden":
            return accept(seen)
        if seen.method == "POST":
            arrived.set()
            leave.wait(30)
            return None
        return 200, {}, {"state": "staged"}

    with running(respond) as service:
        child = spawn(service.url, folder, "--into", "x", "--jobs", "1")
        try:
            assert arrived.wait(30)
            child.send_signal(signal.SIGINT)
            stdout, _ = child.communicate(timeout=30)
        finally:
            child.kill()
            child.wait()
            leave.set()
    said = json.loads(stdout)
    assert child.returncode == 130
    assert (said["interrupted"], said["waiting"], said["unsent"], said["ready"]) == (True, 1, 2, 0)


@pytest.mark.parametrize("extra", [[], ["--again"]], ids=["once", "again"])
def test_what_was_lost_with_its_host_is_sent_again_under_the_same_key(folder: Path, extra: list[str]) -> None:
    accepted: Counter[str] = Counter()

    def respond(seen: Seen) -> Answer:
        if seen.method == "POST":
            accepted[seen.target] += 1
            upload = f"{hashlib.sha256(seen.target.encode()).hexdigest()[:8]}-{accepted[seen.target]}"
            return 202, {}, {"id": upload, "links": {"self": f"/ingests/{upload}"}}
        lost = {"state": "failed", "failure": {"class": "host-lost", "detail": "silent"}, "variants": []}
        return 200, {}, lost if seen.target.endswith("-1") else READY

    with running(respond) as service:
        result = run(service.url, folder, "--into", "x", "--json", *extra)
    said = told(result)
    assert (result.exit_code, said["files"], said["accepted"], said["ready"], said["failures"]) == (0, 3, 3, 3, [])
    assert said["bytes"] == 16
    keys = Counter((one.target, one.headers["Idempotency-Key"]) for one in service.posts())
    assert len(keys) == 3
    assert set(keys.values()) == {2}


def test_a_file_whose_hosts_are_always_lost_fails_at_last(folder: Path) -> None:
    def respond(seen: Seen) -> Answer:
        if seen.method == "POST":
            return 202, {}, {"id": "u", "links": {"self": "/ingests/u"}}
        return 200, {}, {"state": "failed", "failure": {"class": "host-lost", "detail": "silent"}, "variants": []}

    with running(respond) as service:
        result = run(service.url, folder / "one.jpg", "--into", "x", "--json")
    assert (result.exit_code, told(result)["failures"][0]["class"]) == (1, "host-lost")
    assert len(service.posts()) == SENDINGS


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_patience_ends_whatever_answers_later(folder: Path, status: int) -> None:
    """Answer as a proxy without a server behind it, or as a host that names another to ask: neither says anything."""

    def respond(seen: Seen) -> Answer:
        return accept(seen) if seen.method == "POST" else (status, {"Retry-After": "0"}, {"detail": "ask another"})

    with running(respond) as service:
        result = run(service.url, folder, "--into", "x", "--json", "--patience", "1")
    said = told(result)
    assert (result.exit_code, said["waiting"]) == (1, 3)
    assert "ask another" in said["trouble"]
