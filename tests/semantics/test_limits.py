"""What may lie unread, and what a writer that meets the limit sees."""

from __future__ import annotations

import select
import socket

import pytest

from semantics.option_table import SOL_SOCKET, TCP, encode
from semantics.two_ends import Connection, Step, TwoEnds

Ends = tuple[TwoEnds, TwoEnds]

MOST = 3 << 20
SIZE = 100_000
SO_BUF_LOCK, TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT = 72, 25, 18
ETIMEDOUT = 110


def put(name: str, number: int, value: int, level: int = SOL_SOCKET) -> Step:
    return ["put", name, level, number, encode(value)]


def unread(connection: Connection) -> int:
    """How much finds room towards a server that does not read; it reads everything after."""
    sent = int(connection.client.do("fill", "c", MOST))
    connection.server.do("receive", "s", sent)
    return sent


def alike(plain: int, fused: int) -> bool:
    """TCP counts the memory of packets, not bytes: about the same will do."""
    return plain / 3 < fused < plain * 3


@pytest.mark.parametrize("moment", ["before", "connected", "fused"])
@pytest.mark.parametrize("order", [("SO_SNDBUF", "SO_RCVBUF"), ("SO_RCVBUF", "SO_SNDBUF")])
def test_buffer_sizes_bound_what_lies_unread(
    ends: Ends, moment: str, order: tuple[str, str]
) -> None:
    found = []
    for pair in ends:
        sending, receiving = put("c", socket.SO_SNDBUF, SIZE), put("s", socket.SO_RCVBUF, SIZE)
        early = moment == "before"
        listener = (put("l", socket.SO_RCVBUF, SIZE),) if early else ()
        with pair.connection(listener=listener, client=(sending,) if early else ()) as c:
            if moment == "fused":
                c.warm()
            if not early:
                for name in order:
                    if name == "SO_SNDBUF":
                        c.client.ask(sending)
                    else:
                        c.server.ask(receiving)
            c.warm()
            found.append(unread(c))
    assert alike(*found), found


def test_an_unlocked_buffer_no_longer_bounds_the_ring(ends: Ends) -> None:
    _, fused = ends
    with fused.connection() as c:
        c.warm()
        c.client.ask(put("c", socket.SO_SNDBUF, SIZE))
        c.server.ask(put("s", socket.SO_RCVBUF, SIZE))
        assert unread(c) < 10 * SIZE
        if c.client.ask(put("c", SO_BUF_LOCK, 0)) != [0]:
            pytest.skip("SO_BUF_LOCK needs Linux 5.17")
        assert unread(c) > 10 * SIZE
        c.client.ask(put("c", SO_BUF_LOCK, 1))
        assert unread(c) < 10 * SIZE


@pytest.mark.parametrize("moment", ["before", "fused"])
def test_the_unsent_low_water_mark_bounds_what_lies_unread(ends: Ends, moment: str) -> None:
    found = []
    for pair in ends:
        mark = put("c", TCP_NOTSENT_LOWAT, 20_000, TCP)
        listener = (put("l", socket.SO_RCVBUF, SIZE),)
        with pair.connection(listener=listener, client=(mark,) if moment == "before" else ()) as c:
            c.warm()
            if moment == "fused":
                c.client.ask(mark)
            sent = int(c.client.do("fill", "c", MOST))
            assert c.client.do("poll", "c", select.POLLOUT, 0) == 0
            c.server.do("receive", "s", sent)
            assert c.client.do("poll", "c", select.POLLOUT, 10_000) == select.POLLOUT
            found.append(sent)
    assert alike(*found), found


@pytest.mark.parametrize("moment", ["before", "fused"])
def test_a_user_timeout_ends_a_connection_that_nobody_reads(ends: Ends, moment: str) -> None:
    for pair in ends:
        timeout = put("c", TCP_USER_TIMEOUT, 500, TCP)
        listener = (put("l", socket.SO_RCVBUF, 20_000),)
        client = (put("c", socket.SO_SNDBUF, 20_000), *([timeout] if moment == "before" else []))
        with pair.connection(listener=listener, client=client) as c:
            c.warm()
            if moment == "fused":
                c.client.ask(timeout)
            c.client.do("fill", "c", MOST)
            ended = c.client.do("poll", "c", select.POLLIN, 15_000)
            error = c.client.do("get", "c", SOL_SOCKET, socket.SO_ERROR, 4)
            assert (ended & select.POLLERR, error) == (select.POLLERR, encode(ETIMEDOUT))


def test_a_user_timeout_costs_nothing_while_the_peer_reads(ends: Ends) -> None:
    _, fused = ends
    with fused.connection() as c:
        c.warm()
        c.client.ask(put("c", TCP_USER_TIMEOUT, 500, TCP))
        before = c.in_rings
        for _ in range(20):
            c.both([["send", "c", 100_000]], [["receive", "s", 100_000]])
        assert c.in_rings - before == 2_000_000


def test_the_low_water_mark_holds_back_readiness(ends: Ends) -> None:
    for pair in ends:
        with pair.connection() as c:
            c.warm()
            c.server.ask(put("s", socket.SO_RCVLOWAT, 2000))
            c.client.do("send", "c", 1500)
            assert c.server.do("poll", "s", select.POLLIN, 50) == 0
            c.client.do("send", "c", 500)
            assert c.server.do("poll", "s", select.POLLIN, 10_000) == select.POLLIN
            c.server.do("receive", "s", 2000)
