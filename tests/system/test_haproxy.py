"""Behind Debian's HAProxy, as a fleet is run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from bench.crowd import Crowd, ask
from tests.app.server import Web, head, read_answer, running
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

JPEG = encoded(photo(), "JPEG")
Haproxy = Callable[[Mapping[str, str]], int]

UPLOAD_SECONDS = 10
"""Of the slow uploads: they fit into `web.graceful_seconds`."""


@pytest.fixture
def hosts(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[list[Web]]:
    """Three that share PostgreSQL and Valkey, with their own times for an ending."""
    with ExitStack() as stack:
        made = []
        for number in range(3):
            options = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "WEB__STOP_DELAY_SECONDS": "5"}
            web = Web(tmp_path / f"host-{number}", {f"MILLRACE_{name}": value for name, value in options.items()})
            made.append(stack.enter_context(running(web)))
        yield made
        for web in made:  # together, for each takes its time
            if web.process is not None:
                web.process.terminate()


class Load:
    """Slow uploads and quick requests through a port, until `stop`; `failed` is what was not answered as it should."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failed: list[str] = []
        self.slow = 0
        self.quick = 0
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._upload_slowly, args=(number,)) for number in range(8)]
        self._threads += [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(120)

    def _upload_slowly(self, number: int) -> None:
        time.sleep(number * UPLOAD_SECONDS / 8)
        while not self._ended.is_set():
            try:
                answer = httpx.post(f"{self._url}/assets/slow", content=self._drops(), timeout=120)
                self.failed += [] if answer.status_code == 202 else [f"slow: {answer.status_code} {answer.text[:200]}"]
            except httpx.HTTPError as error:
                self.failed.append(f"slow: {error!r}")
            self.slow += 1

    def _drops(self) -> Iterator[bytes]:
        step = len(JPEG) // 20 + 1
        for start in range(0, len(JPEG), step):
            yield JPEG[start : start + step]
            time.sleep(UPLOAD_SECONDS / 20)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.is_set():
                for wanted, method, path, body in ((202, "POST", "/assets/quick", JPEG), (200, "GET", "/", None)):
                    try:
                        answer = client.request(method, path, content=body)
                        if answer.status_code != wanted:
                            self.failed.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
                    except httpx.HTTPError as error:
                        self.failed.append(f"{method} {path}: {error!r}")
                    self.quick += 1

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def test_a_rolling_restart_fails_no_request(hosts: list[Web], haproxy: Haproxy) -> None:
    load = Load(haproxy({f"host-{number}": f"127.0.0.1:{web.port}" for number, web in enumerate(hosts)}))
    try:
        time.sleep(UPLOAD_SECONDS)
        for web in hosts:
            assert web.process is not None
            web.process.terminate()
            assert web.process.wait(90) == 0
            web.start()
            time.sleep(2)  # until HAProxy has seen it
        time.sleep(UPLOAD_SECONDS)
    finally:
        load.stop()
    assert load.failed == []
    assert load.slow > 16
    assert load.quick > 50


@pytest.mark.parametrize("proxied", [False, True])
def test_1500_that_do_nothing_keep_nobody_waiting(
    tmp_path: Path, database_url: str, haproxy: Haproxy, proxied: bool
) -> None:
    """Connect a crowd of clients: a third of them hardly reads, a third does not end its heads, a third is silent."""
    options = {"MILLRACE_DATABASE_URL": database_url, "MILLRACE_WEB__WORKERS": "2"}
    options["MILLRACE_WEB__TRUSTED_PROXIES"] = '["127.0.0.1"]'
    line = Line(tmp_path / "home", database_url)
    with running(Web(tmp_path / "home", options)) as web:
        port = haproxy({"only": f"127.0.0.1:{web.port}"}) if proxied else web.port
        for path, body in (("large", JPEG + bytes(16 << 20)), ("small", JPEG)):
            answer = httpx.post(f"http://127.0.0.1:{port}/assets/{path}", content=body, timeout=60)
            line.ingest(UUID(answer.json()["id"]))
        with Crowd(port, "/assets/large/-/entry/0/content"):
            asked = ask(port, "/assets/small/-/entry/0/content", JPEG, rounds=20)
            with web.connect("127.0.0.98") as direct:
                direct.sendall(head("GET", "/livez"))
                assert read_answer(direct).status == 200
    line.close()
    assert asked.refused == []
