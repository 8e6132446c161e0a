"""TERM: first health says no, then the listeners close, and what is under way has its time."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from tests.app.server import Web, head, read_answer
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")


def accepts(web: Web) -> bool:
    return httpx.get(f"{web.url}/readyz?for=accept", timeout=30).status_code == 200


def test_health_says_no_before_the_door_closes(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__STOP_DELAY_SECONDS=4, WEB__GRACEFUL_SECONDS=60)
    assert accepts(web)
    assert web.process is not None
    with web.connect() as early, web.connect() as late, httpx.Client(base_url=web.url, timeout=30) as kept:
        early.sendall(head("POST", "/assets/early", Content_Length=len(JPEG)) + JPEG[:100])
        assert kept.get("/livez").status_code == 200
        web.process.terminate()
        while accepts(web):
            time.sleep(0.02)
        told = kept.get("/readyz")
        assert (told.status_code, told.headers["connection"]) == (503, "close")
        assert set(told.json()["capabilities"].values()) == {False}
        assert httpx.post(f"{web.url}/assets/a", content=JPEG, timeout=30).status_code == 202  # it goes on
        late.sendall(head("POST", "/assets/late", Content_Length=len(JPEG)) + JPEG[:100])
        while _listens(web):
            time.sleep(0.05)
        for connection in (early, late):  # under way when the door closed
            connection.sendall(JPEG[100:])
            answer = read_answer(connection)
            assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert web.process.wait(30) == 0


def test_what_takes_longer_than_its_time_is_cut(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__STOP_DELAY_SECONDS=0, WEB__GRACEFUL_SECONDS=1)
    assert web.process is not None
    with web.connect() as endless:
        endless.sendall(head("POST", "/assets/a", Content_Length=len(JPEG)) + JPEG[:100])
        time.sleep(0.5)
        web.process.terminate()
        assert web.process.wait(30) == 0
        assert endless.recv(1) == b""


def _listens(web: Web) -> bool:
    try:
        web.connect().close()
    except OSError:
        return False
    return True
