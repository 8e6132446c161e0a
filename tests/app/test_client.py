"""The socket that clients are served on: its waits end, and an answer leaves in one piece."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.client import ClientSocket
from tests.app.server import Web

MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=30)
        accepted, _ = listener.accept()
    with ClientSocket.adopt(accepted, seconds=0.5) as ours, theirs:
        yield ours, theirs


def test_receiving_ends_without_a_byte(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, _ = pair
    with pytest.raises(TimeoutError):
        ours.recv(1)
    with pytest.raises(TimeoutError):
        ours.recv_into(bytearray(1))


def test_the_limit_of_receiving_can_change(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, _ = pair
    ours.limit_receiving(1.5)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ours.recv(1)
    assert time.monotonic() - began > 1


def test_who_reads_nothing_holds_nobody(pair: tuple[ClientSocket, socket.socket]) -> None:
    """Check that what the client does not read waits, in order, and that the kernel holds little of it."""
    ours, theirs = pair
    for number in range(16):
        ours.sendall(bytes([number]) * MIB)
    assert not ours.push()
    assert ours.taken < 16 * MIB
    received = bytearray()
    while len(received) < 16 * MIB:
        received += theirs.recv(MIB)
        ours.push()
    assert ours.push()
    assert received == b"".join(bytes([number]) * MIB for number in range(16))
    assert ours.taken == 16 * MIB


def test_a_file_is_sent_as_far_as_it_is_taken(pair: tuple[ClientSocket, socket.socket], tmp_path: Path) -> None:
    ours, theirs = pair
    content = os.urandom(16 * MIB)
    (tmp_path / "large").write_bytes(content)
    with (tmp_path / "large").open("rb") as file:
        sent = ours.send_piece(file.fileno(), 0, len(content))
        assert 0 < sent < len(content)
        assert ours.send_piece(file.fileno(), sent, len(content)) < MIB
        with pytest.raises(EOFError):
            ours.send_piece(file.fileno(), len(content), 1)
    ours.shutdown(socket.SHUT_WR)
    received = bytearray()
    while block := theirs.recv(MIB):
        received += block
    assert len(received) >= sent
    assert content.startswith(received)


def test_what_is_held_leaves_with_what_follows(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.hold_next()
    ours.sendall(b"head ")
    assert select.select([theirs], [], [], 0.1)[0] == []
    ours.sendall(b"body")
    assert theirs.recv(100) == b"head body"


def test_what_is_held_leaves_at_the_end(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.hold_next()
    ours.sendall(b"head alone")
    ours.flush()
    ours.shutdown(socket.SHUT_WR)
    with theirs.makefile("rb") as received:
        assert received.read() == b"head alone"


def test_an_answer_is_one_packet(shared_web: Web) -> None:
    with socket.create_connection(("127.0.0.1", shared_web.port), timeout=30) as connection:
        for _ in range(3):  # the later ones on the thread that stays, or on another
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert body
            time.sleep(0.1)


def test_busy_connections_do_not_keep_the_threads_from_the_others(start_web: Callable[..., Web]) -> None:
    web = start_web(WEB__THREADS=8)

    def ask_again_and_again(_: int) -> int:
        with httpx.Client(base_url=web.url, timeout=30) as client:
            return sum(client.get("/livez").status_code == 200 for _ in range(20))

    with ThreadPoolExecutor(24) as clients:
        assert list(clients.map(ask_again_and_again, range(24))) == [20] * 24
