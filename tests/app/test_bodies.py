"""Bodies that are cut, that stall, that are refused while they come."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.app.server import Web, head, read_answer
from tests.pictures import encoded, photo

JPEG = encoded(photo(), "JPEG")

FORM = b'--b\r\nContent-Disposition: form-data; name="asset"; filename="a.jpg"\r\n\r\n' + JPEG + b"\r\n--b--\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("POST", "/assets/a", Content_Length=len(JPEG) + 1) + JPEG,
        head("POST", "/assets/a", Content_Length=len(JPEG)) + JPEG[:10],
        head("POST", "/assets/a", Content_Length=len(JPEG)),
        head("POST", "/assets/a", Transfer_Encoding="chunked") + chunk(JPEG),
        head("POST", "/assets/a", Transfer_Encoding="chunked") + chunk(JPEG) + b"0\r\n",
        head("POST", "/assets/a", Transfer_Encoding="chunked") + chunk(JPEG)[:-100],
        head("POST", "/assets/a", Transfer_Encoding="chunked") + chunk(JPEG) + b"zz\r\n",
        head("POST", "/assets/a", Content_Type="multipart/form-data; boundary=b", Content_Length=len(FORM) - 9)
        + FORM[:-9],
        head("POST", "/assets/a", Content_Type="multipart/form-data; boundary=b", Content_Length=len(FORM)) + FORM[:-9],
    ],
    ids=[
        "one-short",
        "cut",
        "none",
        "no-last-chunk",
        "no-end",
        "cut-chunk",
        "bad-chunk",
        "form-without-end",
        "cut-form",
    ],
)
def test_a_cut_body_is_incomplete(shared_web: Web, request_bytes: bytes) -> None:
    answer = shared_web.exchange(request_bytes, end=True)
    assert (answer.status, answer.json()["code"]) == (400, "incomplete-body")
    shared_web.assert_nothing_staged()


def test_a_reset_leaves_nothing(shared_web: Web) -> None:
    connection = shared_web.connect()
    connection.sendall(head("POST", "/assets/a", Content_Length=1 << 20) + JPEG)
    time.sleep(0.2)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    shared_web.assert_nothing_staged()


@pytest.mark.parametrize("kind", ["sized", "chunked"])
def test_a_body_that_stalls_or_drips_ends(start_web: Callable[..., Web], kind: str) -> None:
    web = start_web(WEB__STALL_SECONDS=1, WEB__DRAIN_SECONDS=0.2)
    framing = {"Content_Length": 100_000} if kind == "sized" else {"Transfer_Encoding": "chunked"}
    start = head("POST", "/assets/a", **framing)
    piece = JPEG[:5000] if kind == "sized" else chunk(JPEG[:5000])
    with web.connect() as silent:
        silent.sendall(start + piece)
        answer = read_answer(silent)
    assert (answer.status, answer.json()["code"]) == (408, "stalled-body")
    assert answer.headers["connection"] == "close"
    with web.connect() as dripping:
        dripping.sendall(start + piece)
        dripping.settimeout(0.2)
        for _ in range(100):  # 5 bytes a second: never silent, far too slow
            dripping.sendall(b"x" if kind == "sized" else chunk(b"x"))
            try:
                dripping.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        dripping.settimeout(10)
        assert read_answer(dripping).status == 408
    web.assert_nothing_staged()


def test_a_fast_start_does_not_pay_for_a_slow_rest(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__STALL_SECONDS=0.5, WEB__DRAIN_SECONDS=0.2)
    with web.connect() as connection:
        connection.sendall(head("POST", "/assets/a", Content_Length=100 << 20) + JPEG + bytes(20 << 20))
        connection.settimeout(0.2)
        for _ in range(100):
            try:
                connection.sendall(b"x")
                connection.recv(1, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        connection.settimeout(10)
        assert read_answer(connection).status == 408


def test_who_is_refused_while_sending_sees_why(start_web: Callable[..., Web]) -> None:
    web = start_web(LIMITS__MAX_BYTES=100_000)
    for _ in range(20):  # 3 MB: within what is drained
        with web.connect() as connection:
            connection.sendall(head("POST", "/assets/a", Content_Length=3_000_000) + bytes(3_000_000))
            answer = read_answer(connection)
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert connection.recv(1) == b""


def test_who_sends_on_for_ever_is_cut_off(start_web: Callable[..., Web]) -> None:
    web = start_web(LIMITS__MAX_BYTES=100_000)
    with web.connect() as connection:
        connection.sendall(head("POST", "/assets/a", Transfer_Encoding="chunked"))
        with pytest.raises(ConnectionError):  # long before 100 MB are sent
            connection.sendall(chunk(bytes(100_000)) * 1_000)


def test_a_body_nobody_wanted_ends_the_connection(shared_web: Web) -> None:
    with shared_web.connect() as connection:
        connection.sendall(head("POST", "/livez", Content_Length=10) + b"0123456789" + head("GET", "/livez"))
        answer = read_answer(connection)
        assert (answer.status, answer.headers["connection"]) == (405, "close")
        assert connection.recv(100) == b""


def clients(web: Web, count: int, stack: ExitStack, *, each: int) -> list[socket.socket]:
    """Connections of several clients, none of whom has more than `each`."""
    return [stack.enter_context(web.connect(f"127.0.0.{2 + number // each}")) for number in range(count)]


def test_200_slow_clients_do_not_stop_the_201st(start_web: Callable[..., Web]) -> None:
    """Check that an upload is answered while 200 slow ones are under way. No time is measured: an upload is synced,
    and a busy disk may take seconds for it."""
    web = start_web(WEB__WORKERS=2, WEB__STALL_SECONDS=120)
    with ExitStack() as stack:
        slow = clients(web, 200, stack, each=50)
        for connection in slow:
            connection.sendall(head("POST", "/assets/slow", Content_Length=50_000) + JPEG[:2000])
        for _ in range(5):
            answer = web.exchange(head("POST", "/assets/a", Content_Length=len(JPEG), Connection="close") + JPEG)
            assert answer.status == 202
        for connection in slow:  # and none of them was dropped
            connection.sendall(JPEG[2000:] + bytes(50_000 - len(JPEG)))
        assert {read_answer(connection).status for connection in slow} == {202}


def test_beyond_its_share_of_threads_an_upload_is_told_to_come_back(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__THREADS=16)
    with ExitStack() as stack:
        for connection in clients(web, 14, stack, each=4):
            connection.sendall(head("POST", "/assets/a", Content_Length=50_000) + JPEG[:2000])
        time.sleep(0.5)
        with web.connect("127.0.0.9") as connection:
            connection.sendall(head("POST", "/assets/a", Content_Length=len(JPEG)) + JPEG)
            answer = read_answer(connection)
        assert (answer.status, answer.json()["code"]) == (503, "busy")
        assert "retry-after" in answer.headers
        assert web.exchange(head("GET", "/livez")).status == 200
