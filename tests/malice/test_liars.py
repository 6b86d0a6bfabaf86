"""Clients of the broker that lie, and what they may leave behind: nothing."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker_fixtures import BrokerProcess, FakeLibrary, claim_of, eventually, libraries, tcp_pair
from loopfuse import _segments as segments
from loopfuse import _wire as wire
from loopfuse._control import fetch_rows
from malice.hostile import fails_with
from test_broker_hostile import still_serves

pytest_plugins = ["broker_fixtures"]
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER
MOST_DESCRIPTORS = 253  # SCM_MAX_FD


@pytest.mark.parametrize(
    "request_",
    [
        b'{"request":"\x8a"}',
        b'{"\xff\xfe":1}',
        b'{"request":' + b"[" * 60000,
        b'{"request":"defuse","ids":[' + b"9" * 5000 + b"]}",
        b'{"request":"defuse","ids":[1e400]}',
        b"{" * 65536,
        b"{" + b" " * 100000,
    ],
    ids=["not-utf8", "no-text", "deep", "huge-number", "infinite", "braces", "too-long"],
)
def test_no_request_ends_the_broker(broker: BrokerProcess, request_: bytes) -> None:
    library = FakeLibrary(broker.path, greet=False)
    library.send(request_)
    assert b"error" in library.socket.recv(65536)
    library.close()
    assert still_serves(broker)


def test_an_empty_packet_costs_the_connection(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (library,):
        library.send(b"")
        assert library.is_dropped()


def _all_packets() -> Iterator[bytes]:
    with tcp_pair() as pair:
        claim = claim_of(pair.client, CLIENT)
        yield wire.pack_claim(claim)
        yield wire.pack_claim(claim._replace(declined=True))
    yield wire.pack_closed(wire.Closed(1, 1))
    yield wire.pack_tap_ask(wire.TapAsk(1))
    yield wire.pack_hello(wire.Hello(0, 1))


def test_descriptors_beside_any_packet_do_not_stay(broker: BrokerProcess) -> None:
    """Pipes, files, other processes' sockets: the broker takes none, however many."""
    here, there = socket.socketpair()
    pipe = os.pipe()
    with libraries(broker.path, 1) as (library,):
        library.settle()
        before = broker.descriptors()
        gifts = [here.fileno(), there.fileno(), *pipe, 0] * 50
        for packet in _all_packets():
            with one_library(broker) as giver:
                socket.send_fds(giver.socket, [packet], gifts[:MOST_DESCRIPTORS])
        eventually(lambda: broker.descriptors() == before, "all are closed")
    there.close()
    os.close(pipe[1])
    # Held by nobody else: the other ends see it.
    assert here.recv(1) == b"" and os.read(pipe[0], 1) == b""
    here.close()
    os.close(pipe[0])


@contextmanager
def one_library(broker: BrokerProcess) -> Iterator[FakeLibrary]:
    library = FakeLibrary(broker.path)
    try:
        yield library
    finally:
        library.close()


def test_a_lie_about_the_pid_is_not_believed(broker: BrokerProcess) -> None:
    with tcp_pair() as pair:
        library = FakeLibrary(broker.path, greet=False)
        library.send(wire.pack_hello(wire.Hello(0, 1)))
        assert isinstance(library.receive().body, wire.Welcome)
        library.claim(pair.client, CLIENT)
        library.settle()
        (row,) = broker.rows()
        assert row.client.pid == os.getpid()
        library.close()


def test_a_socket_that_is_closed_can_not_be_claimed(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (library,), tcp_pair() as pair:
        own = claim_of(pair.client, CLIENT)
        pair.client.close()
        library.send(wire.pack_claim(own))
        assert isinstance(library.receive().body, wire.Refuse)


def test_a_mailbox_can_be_emptied_but_not_cut_off(broker: BrokerProcess) -> None:
    """The broker writes there: a client that could make that fail would end it."""
    library = FakeLibrary(broker.path, greet=False)
    library.send(wire.pack_hello(wire.Hello(0, 1)))
    (box,) = library.receive().fds
    for size in (0, mmap.PAGESIZE * 2):
        assert fails_with(errno.EPERM, os.ftruncate, box, size)
    assert fails_with(errno.EPERM, fcntl.fcntl, box, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with mmap.mmap(box, 0) as memory:
        memory[:4] = b"\xff" * 4
        memory.madvise(mmap.MADV_REMOVE)
    library.settle()
    assert still_serves(broker)
    library.close()


def test_noise_in_a_segment_harms_neither_rows_nor_orders(broker: BrokerProcess) -> None:
    rng = random.Random(6)
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        other.claim(pair.server, SERVER)
        segment = one.receive().fds[0]
        at = segments.header_of(segment)
        for _ in range(50):
            start = rng.choice((0, 32, segments.DIRECTION))
            os.pwrite(segment, rng.randbytes(segments.HEADER - start), at + start)
            (row,) = fetch_rows(broker.path, counters=True)
            assert row.state in ("fused", "plain", "defused")
            one.send(b'{"request":"defuse","all":true}')
            assert b'"last":true' in one.socket.recv(65536)
        assert still_serves(broker)
