"""By which names the service may be called, whose pages may write, and where it listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.server import NOWHERE, ROOT, Web, free_port, running
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")
TARGETS = ("/assets/a/-/info", "/ingests/x", "/failures", "/jobs", "/", "/documentation", "/nowhere")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    options = {"MILLRACE_WEB__HOSTS": '["img.example.com"]'}
    with running(Web(tmp_path_factory.mktemp("named"), options)) as web:
        yield web


def ask(web: Web, method: str, target: str, *fields: str, version: str = "1.1") -> tuple[int, str]:
    lines = [f"{method} {target} HTTP/{version}", "Connection: close", *fields]
    body = b""
    if method == "POST":
        body = JPEG
        lines.append(f"Content-Length: {len(JPEG)}")
    answer = web.exchange("\r\n".join([*lines, "", ""]).encode() + body)
    code = "" if answer.headers.get("content-type") != "application/problem+json" else answer.json()["code"]
    return answer.status, code


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LocalHost:8080", "10.1.2.3:80", "[::1]", "[2001:db8::1]:80"]
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_addresses_and_localhost_need_no_setting(shared_web: Web, host: str, version: str) -> None:
    assert ask(shared_web, "POST", "/assets/a", f"Host: {host}", version=version)[0] == 202


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "web"])
def test_another_name_is_not_ours(shared_web: Web, method: str, target: str, host: str) -> None:
    assert ask(shared_web, method, target, f"Host: {host}") == (421, "misdirected")


def test_both_doors_ask_for_the_name(shared_web: Web) -> None:
    assert ask(shared_web, "POST", "/assets/a", "Host: evil.example") == (421, "misdirected")
    assert ask(shared_web, "POST", "http://evil.example/assets/a", "Host: localhost") == (421, "misdirected")
    assert ask(shared_web, "GET", "http://localhost/assets/a", "Host: evil.example") == (421, "misdirected")


@pytest.mark.parametrize("fields", [[], ["Host:"], ["Host: a b"], ["Host: a@localhost"], ["Host: [::1"], ["Host: a,b"]])
@pytest.mark.parametrize(("method", "target"), [("POST", "/assets/a"), ("GET", "/failures"), ("DELETE", "/assets/a")])
def test_no_name_is_a_bad_request(shared_web: Web, fields: list[str], method: str, target: str) -> None:
    assert ask(shared_web, method, target, *fields) == (400, "bad-request")


def test_http_1_0_may_say_no_name(shared_web: Web) -> None:
    assert ask(shared_web, "POST", "/assets/a", version="1.0")[0] == 202


@pytest.mark.parametrize("fields", [[], ["Host: evil.example"], ["Host: a b"]])
def test_health_is_for_everybody(shared_web: Web, fields: list[str]) -> None:
    assert ask(shared_web, "GET", "/livez", *fields)[0] == 200
    assert ask(shared_web, "GET", "/readyz?for=accept", *fields)[0] == 200


WRITES = [("POST", "/assets/a"), ("DELETE", "/assets/a/-/entry/1"), ("POST", "/jobs"), ("POST", "/failures/x/retry")]


@pytest.mark.parametrize(("method", "target"), WRITES)
@pytest.mark.parametrize(
    "fields",
    [
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: cross-site", "Origin: http://localhost"],
        ["Origin: https://evil.example"],
        ["Origin: null"],
        ["Origin: http://[evil"],
        ["Origin: http://127.0.0.1"],
    ],
)
def test_pages_of_other_sites_do_not_write(shared_web: Web, method: str, target: str, fields: list[str]) -> None:
    assert ask(shared_web, method, target, "Host: localhost", *fields) == (403, "other-site")
    assert ask(shared_web, "GET", "/", "Host: localhost", *fields)[0] == 200  # pictures are shown anywhere


def test_our_own_pages_write(shared_web: Web) -> None:
    for fields in (["Origin: http://localhost:8080"], ["Sec-Fetch-Site: same-origin"], ["Sec-Fetch-Site: none"]):
        assert ask(shared_web, "POST", "/assets/a", "Host: localhost", *fields)[0] == 202


def test_a_host_that_is_named_may_be_asked_for_and_writes(named: Web) -> None:
    assert ask(named, "POST", "/assets/a", "Host: IMG.example.com.:443", "Origin: https://img.example.com")[0] == 202
    assert ask(named, "POST", "/assets/a", "Host: localhost", "Origin: https://img.example.com")[0] == 202
    assert ask(named, "POST", "/assets/a", "Host: evil.example")[0] == 421
    assert ask(named, "POST", "/assets/a", "Host: img.example.com", "Origin: https://evil.example")[0] == 403


def test_any_name_is_not_any_page(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__HOSTS='["*"]')
    assert ask(web, "POST", "/assets/a", "Host: whatever.example")[0] == 202
    assert ask(web, "POST", "/assets/a", "Host: whatever.example", "Origin: https://evil.example")[0] == 403


def listen(home: Path, bind: str, **options: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    command = [str(Path(sys.executable).parent / "gunicorn"), "--config", "python:app.gunicorn_conf", "--bind", bind]
    return subprocess.Popen(
        [*command, "app.wsgi:application"],
        cwd=ROOT,
        env={**environment, **NOWHERE, "MILLRACE_HOME": str(home), "MILLRACE_WEB__WORKERS": "1", **options},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", ""])
def test_it_does_not_listen_to_strangers_by_itself(tmp_path: Path, host: str) -> None:
    process = listen(tmp_path / "home", f"{host}:{free_port()}")
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "web.allow_anonymous" in said


@pytest.mark.parametrize("allowed", [True, False])
def test_it_listens_where_it_may(tmp_path: Path, allowed: bool) -> None:
    port = free_port()
    bind = f"0.0.0.0:{port}" if allowed else f"unix:{tmp_path}/web.sock"
    process = listen(tmp_path / "home", bind, **({"MILLRACE_WEB__ALLOW_ANONYMOUS": "true"} if allowed else {}))
    transport = httpx.HTTPTransport(uds=None if allowed else f"{tmp_path}/web.sock", retries=20)
    try:
        while not allowed and not (tmp_path / "web.sock").exists():
            time.sleep(0.05)
        with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/livez", timeout=30).status_code == 200
            assert client.post("/assets/a", content=JPEG, timeout=30).status_code == 202
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert json.loads(said.splitlines()[0])


def test_the_answer_to_a_page_says_what_would_help(named: Web) -> None:
    ours = {"Origin": "https://img.example.com", "Sec-Fetch-Site": "cross-site"}
    for fields, advice in (({"Origin": "https://evil.example"}, "web.hosts names"), (ours, "a page of the same site")):
        detail = httpx.post(f"{named.url}/jobs", headers=fields, timeout=30).json()["detail"]
        assert advice in detail
