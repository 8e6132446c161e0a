"""Whose turn it is to take a thread, who a client is, and when a head is whole."""

from __future__ import annotations

import errno
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.connection import RIPE
from app.peers import Peers, share_of
from app.server import Worker
from app.turns import Lane, Place, Turns

PLACES = st.builds(Place, st.sampled_from(Lane), st.sampled_from("abcde"))


@given(st.sampled_from([8, 16, 64]), st.lists(st.one_of(PLACES, st.none()), max_size=300))
@example(8, [*[Place(Lane.HEALTH, "a")] * 8, Place(Lane.READING, "a")])  # health has all that it may
def test_turns_keep_their_bounds_and_forget_nobody(threads: int, steps: list[Place | None]) -> None:
    turns: Turns[tuple[int, Place]] = Turns(threads)
    at_work: list[tuple[int, Place]] = []
    waiting: list[tuple[int, Place]] = []

    def hand_out() -> None:
        while (one := turns.next()) is not None:
            assert one == next(other for other in waiting if other[1] == one[1])  # first come, first served
            waiting.remove(one)
            at_work.append(one)

    def check() -> None:
        busy = [place for _, place in at_work]
        ordinary = [place for place in busy if place.lane is not Lane.HEALTH]
        assert (turns.busy, turns.waiting) == (len(busy), len(waiting))
        assert len(busy) <= threads
        assert len(ordinary) < threads
        assert all(sum(place.client == client for place in ordinary) <= threads // 4 for client in "abcde")
        at_most = {Lane.HEALTH: threads // 4, Lane.SENDING: threads // 8, Lane.READING: threads // 2}
        at_most[Lane.RECEIVING] = threads - 2 * max(1, threads // 16)
        assert all(sum(place.lane is lane for place in busy) <= most for lane, most in at_most.items())
        for _, place in waiting:  # for a reason
            lane_is_full = sum(other.lane is place.lane for other in busy) >= at_most[place.lane]
            client_is_full = sum(other.client == place.client for other in ordinary) >= threads // 4
            process_is_full = len(busy) == threads or len(ordinary) >= threads - max(1, threads // 16)
            if place.lane is Lane.HEALTH:
                assert lane_is_full or len(busy) == threads
            else:
                assert lane_is_full or client_is_full or process_is_full

    for number, step in enumerate(steps):
        if step is not None:
            waiting.append((number, step))
            turns.join(step, (number, step))
        elif at_work:
            turns.end(at_work.pop(0)[1])
        hand_out()
        check()
    while at_work:
        turns.end(at_work.pop()[1])
        hand_out()
        check()
    assert not waiting


@pytest.mark.parametrize("threads", [8, 16, 32, 64])
def test_uploads_have_threads_whatever_hangs(threads: int) -> None:
    """Everything that may wait for PostgreSQL or a store, from as many clients as there may be."""
    turns: Turns[Place] = Turns(threads)
    for number in range(100):
        for lane in (Lane.READING, Lane.SENDING, Lane.HEALTH):
            turns.join(Place(lane, f"client {number}"), Place(lane, f"client {number}"))
    while turns.next() is not None:
        pass
    turns.join(Place(Lane.RECEIVING, "uploader"), Place(Lane.RECEIVING, "uploader"))
    assert turns.next() == Place(Lane.RECEIVING, "uploader")


def test_clients_that_wait_take_turns() -> None:
    turns: Turns[str] = Turns(8)
    for number in range(20):
        turns.join(Place(Lane.READING, "a"), f"a{number}")
    turns.join(Place(Lane.READING, "b"), "b0")
    assert [turns.next(), turns.next(), turns.next(), turns.next()] == ["a0", "b0", "a1", None]
    turns.leave(Place(Lane.READING, "a"), "a2")
    turns.end(Place(Lane.READING, "a"))
    assert (turns.next(), turns.next()) == ("a3", None)


HEAD = b"GET /assets/a HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: %s\r\n\r\nX-Forwarded-For: 9.9.9.9\r\n"


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("192.0.2.1", b"198.51.100.1", "192.0.2.1"),  # a stranger is not believed
        ("10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", b"198.51.100.9, 198.51.100.1", "198.51.100.1"),  # what the client itself said counts for nothing
        ("10.0.0.1", b"198.51.100.9, 198.51.100.1, 10.0.0.2,10.0.0.3", "198.51.100.1"),
        ("10.0.0.1", b"10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", b"198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", b"[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", b"2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", b"198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"198.51.100.9\r\nx-forwarded-for: 198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", b"198.51.100.1", "198.51.100.1"),
        ("2001:db8:1::1", b"198.51.100.1", "2001:db8:1::1"),
        ("", b"198.51.100.1", "198.51.100.1"),  # a Unix socket
        ("", b"", ""),
    ],
)
def test_a_client_is_the_last_address_that_is_no_proxy_of_ours(peer: str, said: bytes, client: str) -> None:
    peers = Peers([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
    assert peers.client_of((peer, 4711) if peer else "", HEAD % said) == client


def test_an_ipv6_network_is_one_client() -> None:
    assert share_of("2001:db8::1") == share_of("2001:db8::ffff:1") != share_of("2001:db8:0:1::1")
    assert share_of("192.0.2.1") == "192.0.2.1"


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b": "]), max_size=40), st.data())
def test_the_end_of_a_head_is_seen_wherever_it_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    """Look at each piece with the three bytes before it, and no more."""
    head = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(head)), max_size=8)))
    seen = bytearray()
    found = False
    for start, end in zip([0, *cuts], [*cuts, len(head)], strict=True):
        before = max(0, len(seen) - 3)
        seen += head[start:end]
        found = found or RIPE.search(seen, before) is not None
    assert found == (RIPE.search(head) is not None)


@pytest.mark.parametrize("number", [errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EPERM, errno.ECONNABORTED])
def test_a_connection_that_failed_while_it_waited_ends_no_other(number: int) -> None:
    def accept() -> object:
        raise errors.pop()

    errors = [BlockingIOError(), OSError(number, "failed while it waited"), OSError(number, "failed while it waited")]
    Worker._accept(cast(Any, SimpleNamespace()), SimpleNamespace(accept=accept))
    assert len(errors) < 3
