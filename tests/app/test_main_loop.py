"""The web worker's own loop meets errors that were not foreseen, in a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.app.server import Web, head, read_answer
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")


@pytest.fixture
def armed(tmp_path: Path) -> Path:
    directory = tmp_path / "failpoints"
    directory.mkdir()
    return directory


def test_an_error_in_a_turn_ends_neither_the_worker_nor_what_is_under_way(
    start_web: Callable[..., Web], armed: Path
) -> None:
    web = start_web(FAILPOINTS=armed)
    workers = web.workers()
    with web.connect() as under_way:
        under_way.sendall(head("POST", "/assets/a", Content_Length=len(JPEG)) + JPEG[:100])
        (armed / "loop.turn@web").write_text("raise\nalways")
        failures = 3
        while sum(line["message"] == "web failed and goes on" for line in web.lines()) < failures:
            time.sleep(0.05)
        (armed / "loop.turn@web").unlink()
        under_way.sendall(JPEG[100:])
        assert read_answer(under_way).status == 202
    assert web.exchange(head("GET", "/livez")).status == 200
    assert web.workers() == workers


@pytest.mark.parametrize("begun", [b"", b"GET /livez HTTP/1.1\r\n"])
def test_an_error_with_one_connection_ends_that_one(start_web: Callable[..., Web], armed: Path, begun: bytes) -> None:
    web = start_web(FAILPOINTS=armed, WEB__THREADS=8)
    workers = web.workers()
    with web.connect() as other, web.connect() as unlucky:
        other.sendall(b"GET /livez HTTP/1.1\r\n")
        unlucky.sendall(begun)
        time.sleep(0.2)  # both are seen
        (armed / "web.connection").write_text("raise")
        unlucky.sendall(head("GET", "/livez")[len(begun) :])
        with suppress(ConnectionResetError):  # what it sent was not read
            assert unlucky.recv(1) == b""
        other.sendall(b"Host: localhost\r\n\r\n")
        assert read_answer(other).status == 200
    assert web.workers() == workers


def test_errors_with_connections_that_come_take_no_places_from_others(
    start_web: Callable[..., Web], armed: Path
) -> None:
    threads = 8
    web = start_web(FAILPOINTS=armed, WEB__THREADS=threads)
    (armed / "web.connection").write_text("raise\nalways")
    for _ in range(8 * threads + 1):
        with web.connect() as unlucky:
            assert unlucky.recv(1) == b""
    (armed / "web.connection").unlink()
    assert web.exchange(head("GET", "/livez")).status == 200
