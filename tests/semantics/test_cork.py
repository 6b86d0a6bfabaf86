"""TCP_CORK and MSG_MORE: what waits for more arrives with it, in a ring as by TCP."""

from __future__ import annotations

import functools
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from broker_fixtures import eventually
from semantics.option_table import SOL_SOCKET, TCP, encode
from semantics.test_queries import SIOCINQ, TCP_CORK, Ends, when_fused
from semantics.two_ends import Connection, Step

SO_TIMESTAMP = 29
CEILING = 0.2
"""Seconds after which TCP waits no longer, tcp(7)."""
ON: Step = ["put", "c", TCP, TCP_CORK, encode(1)]
OFF: Step = ["put", "c", TCP, TCP_CORK, encode(0)]
NODELAY: Step = ["put", "c", TCP, socket.TCP_NODELAY, encode(1)]
CORKED: list[Step] = [ON, ["send", "c", 10]]
AT_LEAST_15: Step = ["put", "s", SOL_SOCKET, socket.SO_RCVLOWAT, encode(15)]
MORE: list[Step] = [["send_flags", "c", 10, socket.MSG_MORE]]
WAYS = ("recv", "poll", "select", "epoll", "edge")

holding = pytest.mark.parametrize("hold", [CORKED, MORE], ids=["cork", "more"])


def promptly(act: Callable[[], Any]) -> Any:
    """What `act` says when it was done before bytes that it holds back are let go by the clock."""
    for _ in range(20):
        began = time.monotonic()
        said = act()
        if time.monotonic() - began < CEILING * 0.7:
            return said
    pytest.fail("this machine never answers in time")


def taken_first(c: Connection, way: str, steps: list[Step], size: int) -> Any:
    """How many of `size` bytes, which the client sends by `steps`, a waiting server gets first."""

    def act() -> Any:
        c.server.tell(["take_when_told", "s", way, size])
        time.sleep(0.02)
        c.client.ask(*steps)
        (taken,) = c.server.hear()
        c.server.ask(["receive", "s", size - taken])
        return taken

    return promptly(act)


@holding
def test_bytes_that_wait_for_more_are_not_there_yet(ends: Ends, hold: list[Step]) -> None:
    def act(c: Connection) -> Any:
        def once() -> Any:
            c.client.ask(*hold)
            said = c.server.ask(["poll", "s", select.POLLIN, 20], ["ioctl", "s", SIOCINQ, 0])
            c.client.ask(OFF, NODELAY)
            return said + c.server.ask(["receive", "s", 10])

        return promptly(once)

    assert when_fused(ends, act)[:2] == [0, 0]


@pytest.mark.parametrize("way", WAYS)
@holding
def test_who_waits_is_told_of_them_together(ends: Ends, hold: list[Step], way: str) -> None:
    steps: list[Step] = [*hold, ["pause", 20], ["send", "c", 20], OFF]
    assert when_fused(ends, lambda c: taken_first(c, way, steps, 30)) == 30


@pytest.mark.parametrize("way", WAYS)
@holding
def test_they_do_not_wait_for_ever(ends: Ends, hold: list[Step], way: str) -> None:
    def act(c: Connection) -> Any:
        c.server.tell(["take_when_told", "s", way, 100])
        time.sleep(0.02)
        began = time.monotonic()
        c.client.ask(*hold)
        said = c.server.hear()
        assert time.monotonic() - began > CEILING / 2
        c.client.ask(OFF, ["send", "c", 5])
        return said + c.server.ask(["receive", "s", 5])

    assert when_fused(ends, act)[0] == 10


@pytest.mark.parametrize(
    "push",
    [[OFF], [NODELAY], [["shut", "c", socket.SHUT_WR]], [["send", "c", 70_000]]],
    ids=["uncorked", "nodelay", "shut", "a-segment"],
)
def test_what_pushes_them(ends: Ends, push: list[Step]) -> None:
    def act(c: Connection) -> Any:
        asking: Step = ["poll", "s", select.POLLIN, 8000]
        began = time.monotonic()
        said = c.client.ask(*CORKED, *push) + c.server.ask(asking)
        said.append(time.monotonic() - began < CEILING * 0.7)
        return said + c.server.ask(["receive", "s", 10])

    assert when_fused(ends, act, stays=False)[-2]


def test_they_outlive_their_sender(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.ask(*CORKED)
        c.client.restart()
        said = c.server.ask(["receive", "s", 10], ["receive", "s", 1])
        c.client.ask(["new", "c", "127.0.0.1"])
        return said

    assert "the end" in when_fused(ends, act, stays=False)[1]


def test_a_buffer_full_of_them_does_not_stall(ends: Ends) -> None:
    rcvbuf: Step = ["put", "l", SOL_SOCKET, socket.SO_RCVBUF, encode(20_000)]
    for pair in ends:
        with pair.connection(listener=(rcvbuf,)) as c:
            c.warm()
            c.client.ask(ON)
            began = time.monotonic()
            _, took = c.both([["send", "c", 300_000], OFF], [["receive", "s", 300_000]])
            assert "then" not in took[0], took
            assert time.monotonic() - began < 5


def goes_by_the_ring(c: Connection, *, fuses: bool) -> bool:
    """A few more rounds; has an answer gone by the ring?"""
    c.both([["rounds", "c", 12]], [["echo_pushed", "s", 12]])
    return not fuses or (c.row is not None and c.row.bytes_to_client > 0)


def test_a_listeners_cork_is_its_sockets(ends: Ends) -> None:
    cork: Step = ["put", "l", TCP, TCP_CORK, encode(1)]
    said = []
    for pair in ends:
        with pair.connection(listener=(cork,)) as c:
            c.server.do("put", "s", TCP, socket.TCP_NODELAY, encode(1))
            eventually(functools.partial(goes_by_the_ring, c, fuses=pair.fuses), "it is fused")

            def once(c: Connection = c) -> Any:
                c.server.do("send", "s", 10)
                told = c.client.ask(["poll", "c", select.POLLIN, 20])
                c.server.do("put", "s", TCP, socket.TCP_NODELAY, encode(1))
                c.client.do("receive", "c", 10)
                return told

            said.append(promptly(once))
    assert said == [[0], [0]]


def test_a_file_that_is_sent_under_a_cork_comes_with_its_header(ends: Ends) -> None:
    steps: list[Step] = [*CORKED, ["pause", 20], ["send_file", "c", 3000], ["pause", 20], OFF]
    assert when_fused(ends, lambda c: taken_first(c, "recv", steps, 3010)) == 3010


@holding
def test_a_forked_child_pushes_what_its_parent_held_back(ends: Ends, hold: list[Step]) -> None:
    def act(c: Connection) -> Any:
        def once() -> Any:
            c.client.ask(*hold)
            said = c.server.ask(["poll", "s", select.POLLIN, 20])
            c.client.ask(["in_a_child", ["put", "c", TCP, TCP_CORK, encode(0)], ["send", "c", 5]])
            return said + c.server.ask(["receive", "s", 15])

        return promptly(once)

    assert when_fused(ends, act)[0] == 0


@pytest.mark.parametrize("way", ["second-edge", "FIONREAD"])
@pytest.mark.parametrize(
    "ends_by",
    [
        ["put", "c", SOL_SOCKET, SO_TIMESTAMP, encode(1)],
        ["shut", "c", socket.SHUT_WR],
    ],
    ids=["option", "shutdown"],
)
def test_what_is_held_counts_once_the_ring_has_ended(ends: Ends, ends_by: Step, way: str) -> None:
    def act(c: Connection) -> Any:
        if way == "second-edge":  # the set has looked, and found nothing, while they were held
            c.server.tell(["take_when_told", "s", way, 100])
            c.client.ask(["send", "c", 1], ["pause", 50], *MORE, ["pause", 20], ends_by)
            return c.server.hear()
        c.client.ask(*MORE, ends_by)
        return c.server.ask(
            ["poll", "s", select.POLLIN, 8000], ["ioctl", "s", SIOCINQ, 0], ["receive", "s", 10]
        )

    assert 10 in when_fused(ends, act, stays=False)


def test_what_a_killed_sender_held_back_is_counted(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.ask(*MORE)
        c.client.restart()
        c.client.ask(["new", "c", "127.0.0.1"])
        return c.server.ask(["poll", "s", select.POLLIN, 8000], ["ioctl", "s", SIOCINQ, 0])

    assert when_fused(ends, act, stays=False) == [1, 10]


@pytest.mark.parametrize(
    ("waits", "said"),
    [
        ([], ["78" * 10]),
        ([["receive_now", "s", 100, socket.MSG_PEEK | socket.MSG_WAITALL]], ["78" * 10] * 2),
        ([AT_LEAST_15, ["take_when_told", "s", "edge", 100, socket.MSG_DONTWAIT]], [0, 10, ""]),
    ],
    ids=["at-once", "peek", "edge"],
)
def test_what_a_killed_sender_held_back_comes_with_what_it_had_shown(
    ends: Ends, waits: list[Step], said: list[Any]
) -> None:
    """Who waits for more than both is told of them by the end, before the time is over."""
    piece: Step = ["send_flags", "c", 5, 0]

    def act(c: Connection) -> Any:
        c.server.tell(*waits)
        time.sleep(0.02)
        c.client.ask(piece, ON, piece)
        c.client.restart()
        told = c.server.hear() + c.server.ask(["receive_now", "s", 100, 0])
        c.client.ask(["new", "c", "127.0.0.1"])
        return told

    assert when_fused(ends, act, stays=False) == said


def test_a_reader_that_wants_no_more_is_not_shown_them(ends: Ends) -> None:
    """Its own SHUT_RD looks like the end of the stream, at which all would count."""

    def act(c: Connection) -> Any:
        c.server.tell(
            ["receive_until_shut", "s", 100], ["receive_now", "s", 100, socket.MSG_DONTWAIT]
        )
        c.client.ask(*CORKED)
        return c.server.hear()

    assert when_fused(ends, act, stays=False) == [0, ""]


@pytest.mark.parametrize("who", ["rearmed", "left", "looked", "briefly"])
def test_a_thread_that_sleeps_already_is_told_of_them(ends: Ends, who: str) -> None:
    """Another one has re-armed the entry, or has been told first and gone, while they were held."""

    def act(c: Connection) -> Any:
        c.server.tell(["two_threads_wait", "s", who, 100])
        time.sleep(0.05)
        c.client.ask(*MORE)
        return c.server.hear()

    assert when_fused(ends, act) == [10]


def test_the_time_runs_from_the_send(ends: Ends) -> None:
    def act(c: Connection) -> Any:
        c.client.ask(*MORE)
        time.sleep(2 * CEILING)
        return c.server.ask(["receive_now", "s", 100, socket.MSG_DONTWAIT])

    assert when_fused(ends, act) == ["78" * 10]


def test_later_ones_are_held_anew(ends: Ends) -> None:
    piece: list[Step] = [["send", "c", 5], ["pause", 20]]

    def act(c: Connection) -> Any:
        def once() -> Any:
            c.client.ask(*CORKED)
            first = c.server.ask(["take_when_told", "s", "recv", 100])
            return first, promptly_after(first)

        def promptly_after(first: Any) -> Any:
            c.server.tell(["take_when_told", "s", "recv", 100])
            c.client.ask(*piece, *piece, *piece)
            later = c.server.hear()
            c.client.ask(OFF)
            c.server.ask(["receive", "s", 15 - later[0]])
            return later

        for _ in range(20):
            said = once()
            if said[1] == [15]:
                break
        return said

    assert when_fused(ends, act) == ([10], [15])


def test_who_waits_until_it_may_send_does_not_stall(ends: Ends) -> None:
    small = encode(8192)
    options: tuple[Step, ...] = (["put", "l", SOL_SOCKET, socket.SO_RCVBUF, small],)
    mine: tuple[Step, ...] = (["put", "c", SOL_SOCKET, socket.SO_SNDBUF, small],)
    for pair in ends:
        with pair.connection(listener=options, client=mine) as c:
            c.warm()
            c.client.ask(ON)
            began = time.monotonic()
            sending: list[Step] = [["send_when_told", "c", 2_000_000], OFF]
            _, took = c.both(sending, [["receive", "s", 2_000_000]])
            assert "then" not in took[0], took
            assert time.monotonic() - began < 4  # each ring full took 0.2 s


def test_what_comes_through_a_pipe_waits_too(ends: Ends) -> None:
    steps: list[Step] = [["splice_more", "c", 10], ["pause", 20], ["send", "c", 20]]
    assert when_fused(ends, lambda c: taken_first(c, "recv", steps, 30)) == 30


def test_those_that_tcp_held_before_the_ring_come_with_the_rings(ends: Ends) -> None:
    """The connection is fused while TCP itself holds bytes back; the next ones go by the ring."""
    to_client = [["send", "s", 1]], [["receive", "c", 1]]

    def taken(c: Connection, *, fuses: bool) -> Any:
        for _ in range(3):
            c.both(to_client[1], to_client[0])
        began = time.monotonic()
        c.client.ask(*CORKED)
        while fuses and c.in_rings == 0 and time.monotonic() - began < CEILING * 0.6:
            c.both(to_client[1], to_client[0])
        c.client.do("send", "c", 10)
        in_time = time.monotonic() - began < CEILING * 0.8
        said = c.server.ask(["take_when_told", "s", "recv", 100])
        is_meant = not fuses or (c.row is not None and c.row.bytes_to_server == 10)
        return said if in_time and is_meant else None

    for pair in ends:
        for _ in range(40):
            with pair.connection() as c:
                said = taken(c, fuses=pair.fuses)
            if said is not None:
                break
        assert said == [20]
