"""ioctl, fcntl and getsockopt as questions, with bytes in the ring: answers as on plain TCP."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from semantics.option_table import SOL_SOCKET, TCP, encode
from semantics.two_ends import Connection, Party, Step, TwoEnds

SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK = 0x541B, 0x5411, 0x894B, 0x8905
SIOCSPGRP, SIOCGPGRP, SIOCGSTAMP, SIOCGSTAMPNS = 0x8902, 0x8904, 0x8906, 0x8907
FIONBIO, FIOASYNC = 0x5421, 0x5452
SO_ERROR, IP_RECVERR, MSG_ERRQUEUE, MSG_FASTOPEN = 4, 11, 0x2000, 0x20000000
TCP_CORK, TCP_INFO, TCP_FASTOPEN, TCP_INQ, SO_PEEK_OFF = 3, 11, 23, 36, 42
MAPPED_BUFFER = 65536

Ends = tuple[TwoEnds, TwoEnds]


def when_fused(ends: Ends, act: Callable[[Connection], Any], *, stays: bool = True) -> Any:
    """What a program gets plain and fused, which must be the same."""
    said = []
    for pair in ends:
        with pair.connection() as connection:
            connection.warm()
            before = connection.in_rings
            said.append(act(connection))
            if pair.fuses and stays:
                assert connection.row and connection.row.state == "fused"
                assert connection.in_rings >= before
    assert said[1] == said[0]
    return said[1]


def settle(ask: Callable[[], Any], wanted: Any) -> Any:
    """The answer, asked for until it is `wanted`, but not for long: acknowledgements lag."""
    deadline = time.monotonic() + 10
    while (answer := ask()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return answer


def test_unread_bytes_are_counted_wherever_they_lie(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        counts = []
        for size, taken in ((1000, 300), (500, 1200)):
            c.client.do("send", "c", size)
            counts.append(c.server.do("poll", "s", select.POLLIN, 10_000))
            time.sleep(0.02)
            counts.append(c.server.do("ioctl", "s", SIOCINQ, 0))
            counts += c.server.ask(["receive", "s", taken], ["ioctl", "s", SIOCINQ, 0])
        return counts

    assert 1000 in when_fused(ends, act)


def test_bytes_beyond_the_peers_buffer_count_as_unsent(ends: Ends) -> None:
    rcvbuf: Step = ["put", "l", SOL_SOCKET, socket.SO_RCVBUF, encode(20_000)]
    sndbuf: Step = ["put", "c", SOL_SOCKET, socket.SO_SNDBUF, encode(200_000)]
    for pair in ends:
        with pair.connection(listener=(rcvbuf,), client=(sndbuf,)) as c:
            c.warm()

            def unsent(request: int, client: Party = c.client) -> int:
                return int(client.do("ioctl", "c", request, 0))

            c.client.do("send", "c", 1000)
            for request in (SIOCOUTQ, SIOCOUTQNSD):
                assert settle(lambda r=request: unsent(r), 0) == 0  # type: ignore[misc]
            c.client.do("send", "c", 99_000)
            for request in (SIOCOUTQ, SIOCOUTQNSD):
                assert 50_000 < unsent(request) < 99_000
            c.server.do("receive", "s", 100_000)
            for request in (SIOCOUTQ, SIOCOUTQNSD):
                assert settle(lambda r=request: unsent(r), 0) == 0  # type: ignore[misc]


def tcp_info(party: Party, name: str) -> dict[str, int]:
    data = bytes.fromhex(party.do("get", name, TCP, TCP_INFO, 232))
    field = {"acked": 120, "received": 128, "sent": 200}
    counts: dict[str, int] = {
        key: struct.unpack_from("=Q", data, offset)[0] for key, offset in field.items()
    }
    return counts | {"unsent": struct.unpack_from("=I", data, 144)[0]}


def test_tcp_info_counts_ring_bytes(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        time.sleep(0.2)  # what was sent before is acknowledged by then
        before = tcp_info(c.client, "c"), tcp_info(c.server, "s")
        c.both([["send", "c", 5000]], [["receive", "s", 4000]])
        settle(lambda: tcp_info(c.client, "c")["acked"] - before[0]["acked"], 5000)
        after = tcp_info(c.client, "c"), tcp_info(c.server, "s")
        return [{key: b[key] - a[key] for key in a} for a, b in zip(before, after, strict=True)]

    client, server = when_fused(ends, act)
    assert client == {"acked": 5000, "sent": 5000, "received": 0, "unsent": 0}
    assert server["received"] == 5000


def test_tcp_info_counts_bytes_that_came_back_to_tcp_once(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        before = tcp_info(c.server, "s")["received"]
        c.client.do("send", "c", 1000)
        # The client sends them again while it waits for its byte.
        c.both([["receive", "c", 1]], [["want_by_tcp", "s"], ["send", "s", 1]])
        c.client.do("send", "c", 10)
        c.server.do("receive", "s", 1010)
        return tcp_info(c.server, "s")["received"] - before

    assert when_fused(ends, act, stays=False) == 1010


def test_the_urgent_mark_comes_after_ring_bytes(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.ask(
            ["send", "c", 100],
            ["send_flags", "c", 1, socket.MSG_OOB],
            ["send", "c", 50],
        )
        marks: list[Step] = [["ioctl", "s", SIOCATMARK, 0], ["at_mark", "s"]]
        return c.server.ask(
            *(["poll", "s", select.POLLPRI, 10_000], *marks),
            *(["receive", "s", 100], *marks),
            *(["receive_now", "s", 1, socket.MSG_OOB], ["receive", "s", 50], *marks),
        )

    assert when_fused(ends, act, stays=False)[1:6:3] == [0, 1]


@pytest.mark.parametrize("way", ["ioctl", "fcntl"])
def test_non_blocking_is_obeyed(ends: Ends, way: str) -> None:
    def act(c: Connection) -> Any:
        said = []
        for on in (1, 0):
            flags = os.O_RDWR | (os.O_NONBLOCK if on else 0)
            switch = (
                ["ioctl", "s", FIONBIO, on]
                if way == "ioctl"
                else ["flags", "s", fcntl.F_SETFL, flags]
            )
            said += c.server.ask(switch, ["flags", "s", fcntl.F_GETFL, 0])
            if on:
                said.append(c.server.do("receive_now", "s", 10, 0))
            c.client.do("send", "c", 3)
            said += c.server.ask(["poll", "s", select.POLLIN, 10_000], ["receive_now", "s", 10, 0])
        return said

    assert "EAGAIN" in when_fused(ends, act)


def asking_for_signals(way: str, pid: int) -> tuple[Step, ...]:
    """SIGIO to this process, for the socket "c"."""
    on: Step = (
        ["ioctl", "c", FIOASYNC, 1]
        if way == "ioctl"
        else ["flags", "c", fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC]
    )
    return (["count_signals", signal.SIGIO], ["flags", "c", fcntl.F_SETOWN, pid], on)


@pytest.mark.parametrize("way", ["ioctl", "fcntl"])
@pytest.mark.parametrize("moment", ["before connect", "once fused"])
def test_sigio_comes_for_every_byte(ends: Ends, way: str, moment: str) -> None:
    for pair in ends:
        asking = asking_for_signals(way, pair.client.pid)
        early = moment == "before connect"
        with pair.connection(client=asking if early else ()) as c:
            c.warm("socket-option" if early else None)
            if not early:
                c.client.ask(*asking)
            c.client.do("signals_came")
            for _ in range(3):
                c.server.do("send", "s", 1)
                assert settle(lambda p=c.client: p.do("signals_came"), 1) == 1  # type: ignore[misc]
                c.client.do("receive", "c", 1)


def test_the_owner_of_signals_is_the_kernels_to_know(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        parent = os.getpid()
        return c.client.ask(
            *(["flags", "c", fcntl.F_SETOWN, parent], ["flags", "c", fcntl.F_GETOWN, 0]),
            *(["ioctl", "c", SIOCSPGRP, parent], ["ioctl", "c", SIOCGPGRP, 0]),
            *(["flags", "c", 10, signal.SIGUSR1], ["flags", "c", 11, 0]),
        )

    when_fused(ends, act)


def test_the_time_of_the_last_packet_is_the_kernels(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.both([["send", "c", 10]], [["receive", "s", 10]])
        return c.server.ask(["ioctl", "s", SIOCGSTAMP, 0], ["ioctl", "s", SIOCGSTAMPNS, 0])

    assert when_fused(ends, act) == ["ENOENT", "ENOENT"]


def test_the_error_queue_is_the_kernels(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.do("send", "c", 10)
        return c.server.ask(
            ["put", "s", 0, IP_RECVERR, encode(1)],
            ["receive_ancillary", "s", 10, MSG_ERRQUEUE],
            ["receive", "s", 10],
        )

    assert when_fused(ends, act)[1] == "EAGAIN"


def test_so_error_tells_of_a_dead_peer_once(ends: Ends) -> None:
    said = []
    for pair in ends:
        short_lived = TwoEnds(pair.session)
        try:
            with short_lived.connection() as c:
                c.warm()
                c.client.do("send", "c", 10)
                short_lived.server.restart()
                asking: Step = ["get", "c", SOL_SOCKET, SO_ERROR, 4]
                said.append(c.client.ask(["poll", "c", select.POLLIN, 5000], asking, asking))
                short_lived.server.ask(["new", "s", "127.0.0.1"], ["new", "l", "127.0.0.1"])
        finally:
            short_lived.stop()
    assert said[1] == said[0]


def test_corked_bytes_arrive(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.ask(["put", "c", TCP, TCP_CORK, encode(1)], ["send", "c", 10])
        said = c.server.ask(["receive", "s", 10])
        return said + c.client.ask(["put", "c", TCP, TCP_CORK, encode(0)])

    when_fused(ends, act)


def test_peek_offsets_count_bytes_that_lay_in_the_ring(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.do("send", "c", 100)
        c.server.do("poll", "s", select.POLLIN, 10_000)
        peek: Step = ["receive_now", "s", 20, socket.MSG_PEEK]
        late: list[Step] = [["put", "s", SOL_SOCKET, SO_PEEK_OFF, encode(10)]]
        late += [["poll", "s", select.POLLIN, 10_000], peek, peek, ["send", "s", 1]]
        # The client takes its bytes back while it waits.
        said = c.both([["receive", "c", 1]], late)
        return [said, c.server.do("receive", "s", 100)]

    when_fused(ends, act, stays=False)


def test_received_bytes_tell_how_many_are_left(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.do("send", "c", 100)
        c.server.do("poll", "s", select.POLLIN, 10_000)
        said = c.server.ask(
            ["put", "s", TCP, TCP_INQ, encode(1)],
            ["receive_left", "s", 30, 64, 0],
            ["receive_left", "s", 30, 64, socket.MSG_PEEK],
            ["receive_left", "s", 30, 0, 0],
            ["receive_left", "s", 10, 18, 0],
            ["receive_left", "s", 30, 64, 0],
        )
        c.client.ask(["send", "c", 5], ["shut", "c", socket.SHUT_WR])
        time.sleep(0.05)
        both = [["receive_left", "s", 5, 64, 0], ["receive_left", "s", 5, 64, 0]]
        return said + c.server.ask(["poll", "s", select.POLLRDHUP, 10_000], *both)

    said = when_fused(ends, act, stays=False)
    assert [answer[:2] for answer in said[1:3]] == [[30, 70], [30, 70]]
    assert [answer[:2] for answer in said[-2:]] == [[5, 1], [0, 1]]  # "go on, there is the end"


def test_zero_copy_receives_find_the_bytes(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        said = []
        for size in (10_000, 100):
            c.client.do("send", "c", size)
            said += c.server.ask(
                ["poll", "s", select.POLLIN, 10_000],
                ["zero_copy", "s", MAPPED_BUFFER],
                ["receive", "s", size],
            )
        return said

    assert when_fused(ends, act, stays=False)[1] == [0, 10_000]


def test_fast_open_loses_nothing(ends: Ends) -> None:
    said = []
    for pair in ends:
        pair.server.ask(["new", "l", "127.0.0.1"], ["put", "l", TCP, TCP_FASTOPEN, encode(5)])
        port = pair.server.do("listen", "l", "127.0.0.1")
        pair.client.ask(
            ["new", "c", "127.0.0.1"],
            ["send_to", "c", "127.0.0.1", port, 10, MSG_FASTOPEN],
        )
        got = pair.server.ask(["accept", "s", "l"], ["receive", "s", 10])
        pair.client.tell(["rounds", "c", 40])
        got += pair.server.ask(["echo", "s", 40])
        got += pair.client.hear()
        pair.client.ask(["close", "c"])
        pair.server.ask(["close", "s"], ["close", "l"])
        said.append(got)
    assert said[1] == said[0]
