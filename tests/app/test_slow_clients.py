"""Clients that do not read, do not end their heads, or say nothing: they hold no thread, and do not stay for ever.

With 8 threads: two for one client, four for reading, one for sending on.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.app.server import Web, head, read_answer
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

JPEG = encoded(photo(), "JPEG")
LARGE = JPEG + bytes(20 << 20)
CONTENT = "/assets/large/-/entry/0/content"
THEIRS = [f"127.0.0.{number}" for number in range(2, 8)]
HONEST = "127.0.0.99"


@pytest.fixture
def start_filled(tmp_path: Path, start_web: Callable[..., Web], database_url: str) -> Iterator[Callable[..., Web]]:
    """Return a function that starts a server with 8 threads and one large picture, in a store of the given kind."""
    home = tmp_path / "home"
    with ExitStack() as ended:

        def start(store: str = "filesystem", **options: object) -> Web:
            stores = {"main": {"kind": store} | ({"root": str(tmp_path / "store")} if store == "filesystem" else {})}
            line = Line(home, database_url, stores=stores)
            ended.callback(line.close)
            web = start_web(
                home,
                DATABASE_URL=database_url,
                WEB__THREADS=8,
                WEB__WORKERS=1,
                STORES=json.dumps(stores),
                **options,
            )
            answer = httpx.post(f"{web.url}/assets/large", content=LARGE, timeout=60)
            line.ingest(UUID(answer.json()["id"]))
            return web

        yield start


def slow_reader(web: Web, client: str, path: str = CONTENT, **fields: object) -> socket.socket:
    connection = web.connect(client)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.sendall(head("GET", path, **fields))
    return connection


def let_in(web: Web, client: str) -> socket.socket:
    """Return a slow reader that has begun to get its answer."""
    reader = slow_reader(web, client)
    assert reader.recv(15, socket.MSG_WAITALL) == b"HTTP/1.1 200 OK"
    return reader


def is_connected(reader: socket.socket) -> bool:
    """Asks the kernel: what lies in it for the client is there after the end, too."""
    return reader.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\1"


def assert_others_are_served(web: Web, *, read: bool = True) -> None:
    transport = httpx.HTTPTransport(local_address=HONEST)
    with httpx.Client(base_url=web.url, transport=transport, timeout=60) as client:
        for _ in range(3):
            assert client.get("/livez").status_code == 200
            assert client.post("/assets/a", content=JPEG).status_code == 202
            if read:
                assert client.get(CONTENT).content == LARGE


@pytest.mark.parametrize("store", ["filesystem", "postgres"])  # by the kernel, and block by block from the store
def test_readers_that_hardly_read_hold_no_thread(start_filled: Callable[..., Web], store: str) -> None:
    web = start_filled(store)
    with ExitStack() as stack:
        readers = [stack.enter_context(let_in(web, client)) for client in THEIRS * 4]
        assert_others_are_served(web)
        with readers[0].makefile("rb") as received:
            received.readline()  # of the status line
            while received.readline() != b"\r\n":
                pass
            assert received.read(len(LARGE)) == LARGE  # nothing of it was lost meanwhile


def test_who_reads_too_slowly_is_cut_and_who_reads_steadily_is_not(start_filled: Callable[..., Web]) -> None:
    web = start_filled(WEB__STALL_SECONDS=1, WEB__MIN_BYTES_PER_SECOND=20_000)
    with ExitStack() as stack:
        steady, trickling, dead = (stack.enter_context(let_in(web, client)) for client in THEIRS[:3])
        received = 0
        ends = time.monotonic() + 60
        while is_connected(trickling) or is_connected(dead):
            assert time.monotonic() < ends
            received += len(steady.recv(1 << 14))
            if is_connected(trickling):
                trickling.recv(100)
            time.sleep(0.1)
        assert is_connected(steady)
        while received < len(LARGE):
            received += len(steady.recv(1 << 20))
    assert_others_are_served(web)


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: ", b"POST /assets/a HTTP/1.1\r\nA: "])
def test_heads_that_do_not_end_hold_no_thread(start_web: Callable[..., Web], begun: bytes) -> None:
    web = start_web(WEB__THREADS=8)
    with ExitStack() as stack:
        silent = [stack.enter_context(web.connect(client)) for client in THEIRS * 10]
        for connection in silent:
            connection.sendall(begun)
        assert_others_are_served(web, read=False)
        rest = head("GET", "/livez")[len(begun) :] if begun[:1] != b"P" else b"x\r\nHost: localhost\r\n\r\n"
        silent[-1].sendall(rest if begun[:4] != b"GET " else b"x\r\n\r\n")
        assert read_answer(silent[-1]).status in (200, 400)  # it was waited for


def test_a_head_in_many_pieces_is_one_head(shared_web: Web) -> None:
    with shared_web.connect() as connection:
        for byte in head("POST", "/assets/a", Content_Length=len(JPEG)):
            connection.sendall(bytes([byte]))
        connection.sendall(JPEG + head("GET", "/livez", Connection="close"))  # and what follows is the next
        assert read_answer(connection).status == 202
        assert read_answer(connection).status == 200


@pytest.mark.parametrize("proxied", [False, True])
def test_one_client_holds_a_quarter_of_the_threads(start_web: Callable[..., Web], proxied: bool) -> None:
    web = start_web(WEB__THREADS=8, **({"WEB__TRUSTED_PROXIES": '["127.0.0.0/8"]'} if proxied else {}))

    def ask(stack: ExitStack, client: str, request: Callable[..., bytes]) -> socket.socket:
        connection = stack.enter_context(web.connect("127.0.0.1" if proxied else client))
        connection.sendall(request(X_Forwarded_For=f"10.9.9.9, 192.0.2.{client.rpartition('.')[2]}, 127.0.0.9"))
        return connection

    def upload(**fields: object) -> bytes:
        return head("POST", "/assets/a", Content_Length=len(JPEG), **fields)

    def livez(**fields: object) -> bytes:
        return head("GET", "/livez", **fields)

    with ExitStack() as stack:
        greedy = [ask(stack, THEIRS[0], upload) for _ in range(6)]
        other = ask(stack, HONEST, upload)
        other.sendall(JPEG)
        assert read_answer(other).status == 202
        assert read_answer(ask(stack, THEIRS[0], livez)).status == 200
        for connection in greedy:  # those that waited have their turn
            connection.sendall(JPEG)
        assert {read_answer(connection).status for connection in greedy} == {202}
