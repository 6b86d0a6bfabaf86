"""The broker's part of a tap, with fake libraries at the ends: who sees what, and for how long."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import loopfuse
from broker_fixtures import (
    BrokerProcess,
    FakeLibrary,
    TcpPair,
    eventually,
    libraries,
    tcp_pair,
    tcp_pairs,
)
from commands import LOOPFUSE
from loopfuse import _wire as wire
from loopfuse._capture_ring import CLOSED
from loopfuse._errors import TapError
from loopfuse._segments import read_segment

pytest_plugins = ["broker_fixtures"]
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER


@contextmanager
def pair(broker: BrokerProcess) -> Iterator[tuple[FakeLibrary, FakeLibrary, TcpPair]]:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as both:
        yield one, other, both


def fuse(one: FakeLibrary, other: FakeLibrary, both: TcpPair) -> int:
    """The segment of the pair; messages before FUSE stay unread by nobody."""
    one.claim(both.client, CLIENT)
    other.claim(both.server, SERVER)
    segment = -1
    for library in (one, other):
        while True:
            message = library.receive()
            if isinstance(message.body, wire.Fuse):
                segment = message.fds[0]
                break
    return segment


def taps_of(segment: int) -> int:
    return read_segment(segment).taps


def test_a_pair_that_lives_is_tapped_and_let_go(broker: BrokerProcess) -> None:
    with pair(broker) as (one, other, both):
        segment = fuse(one, other, both)
        assert taps_of(segment) == 0
        with loopfuse.tap(path=broker.path) as tap:
            assert taps_of(segment) == 1
            message = one.receive()
            assert isinstance(message.body, wire.TapRing) and message.body.slot == 0
            (ring,) = message.fds
            assert isinstance(other.receive().body, wire.TapRing)
            assert tap.statistics().connections == 1
        eventually(lambda: taps_of(segment) == 0, "the bit is cleared")
        assert os.pread(ring, 1, CLOSED) == b"\1"
        assert os.fstat(ring).st_blocks * 512 <= 4096


def test_a_pair_made_meanwhile_gets_the_ring_before_the_segment(broker: BrokerProcess) -> None:
    with pair(broker) as (one, other, both), loopfuse.tap(path=broker.path):
        one.claim(both.client, CLIENT)
        other.claim(both.server, SERVER)
        for library in (one, other):
            assert isinstance(library.receive().body, wire.TapRing)
            message = library.receive()
            assert isinstance(message.body, wire.Fuse)
            assert taps_of(message.fds[0]) == 1


def test_a_killed_tap_leaves_nothing_switched_on(broker: BrokerProcess, tmp_path: Path) -> None:
    with pair(broker) as (one, other, both):
        segment = fuse(one, other, both)
        before = broker.descriptors()
        process = subprocess.Popen(
            [*LOOPFUSE, "tap", "-w", str(tmp_path / "c")],
            env={**os.environ, "LOOPFUSE_BROKER": str(broker.path)},
        )
        try:
            eventually(lambda: taps_of(segment) == 1, "it taps")
            (ring,) = one.receive().fds
        finally:
            process.kill()
            process.wait()
        eventually(lambda: taps_of(segment) == 0, "it is switched off")
        eventually(lambda: broker.descriptors() == before, "the broker has closed the ring")
        assert os.pread(ring, 1, CLOSED) == b"\1"
        assert os.fstat(ring).st_blocks * 512 <= 4096


def test_several_taps_do_not_disturb_each_other(broker: BrokerProcess) -> None:
    with pair(broker) as (one, other, both):
        segment = fuse(one, other, both)
        with loopfuse.tap(path=broker.path):
            with loopfuse.tap(path=broker.path):
                assert taps_of(segment) == 0b11
            eventually(lambda: taps_of(segment) == 0b01, "the second one is over")
            with loopfuse.tap(path=broker.path):
                assert taps_of(segment) == 0b11


def test_many_connections_begin_and_end_at_once(broker: BrokerProcess) -> None:
    """In few packets: the broker keeps no more than 8,192 for a client that does not read."""
    count = 150
    with libraries(broker.path, 2) as (one, other), tcp_pairs(count) as pairs:
        for both in pairs:
            fuse(one, other, both)
        with loopfuse.tap(path=broker.path) as tap:
            assert tap.statistics().connections == count
            for both in pairs:
                both.close()
            eventually(lambda: tap.take(0.1) == [] and not tap._flows, "all are over")
            assert tap.ended is None


def test_there_are_no_more_taps_than_bits(broker: BrokerProcess) -> None:
    most = 8 if os.geteuid() == 0 else 4
    taps = [loopfuse.tap(path=broker.path) for _ in range(most)]
    with pytest.raises(TapError, match="as many as there can be"):
        loopfuse.tap(path=broker.path)
    for tap in taps:
        tap.close()

    def again() -> bool:
        with suppress(TapError), loopfuse.tap(path=broker.path):
            return True
        return False

    eventually(again, "one can begin again")


def test_an_order_to_defuse_leaves_the_taps_alone(broker: BrokerProcess) -> None:
    from loopfuse._control import order_defuse

    with pair(broker) as (one, other, both):
        segment = fuse(one, other, both)
        with loopfuse.tap(path=broker.path):
            order_defuse(broker.path, None)
            assert (taps_of(segment), read_segment(segment).broker_wish != 0) == (1, True)
        eventually(lambda: taps_of(segment) == 0, "the tap is over")
        assert read_segment(segment).broker_wish != 0


@pytest.mark.parametrize(
    "wanted", [{"ids": [99]}, {"ports": [1]}, {"pids": [1]}], ids=["ids", "ports", "pids"]
)
def test_what_was_not_asked_for_is_not_touched(
    broker: BrokerProcess, wanted: dict[str, list[int]]
) -> None:
    with pair(broker) as (one, other, both):
        segment = fuse(one, other, both)
        with loopfuse.tap(path=broker.path, **wanted), pair(broker) as (third, fourth, more):  # type: ignore[arg-type]
            assert taps_of(segment) == 0
            assert taps_of(fuse(third, fourth, more)) == 0
            assert one.is_silent()


def test_a_process_that_knows_no_ring_may_ask(broker: BrokerProcess) -> None:
    with pair(broker) as (one, other, both):
        fuse(one, other, both)
        with loopfuse.tap(path=broker.path), libraries(broker.path, 1) as (child,):
            child.send(wire.pack_tap_ask(wire.TapAsk(1)))
            assert isinstance(child.receive().body, wire.TapRing)
            child.send(wire.pack_tap_ask(wire.TapAsk(2)))
            child.settle()
            assert child.is_silent()


def test_a_question_before_hello_is_a_breach(broker: BrokerProcess) -> None:
    library = FakeLibrary(broker.path, greet=False)
    library.send(wire.pack_tap_ask(wire.TapAsk(1)))
    assert library.is_dropped()
    library.close()


def test_the_end_of_the_broker_ends_the_tap(broker: BrokerProcess) -> None:
    with loopfuse.tap(path=broker.path) as tap:
        broker.process.send_signal(signal.SIGTERM)
        assert list(tap) == []
        assert tap.ended is not None and "broker" in tap.ended
        broker.process.wait(10)


def test_stop_ends_the_iteration(broker: BrokerProcess) -> None:
    with loopfuse.tap(path=broker.path) as tap:
        begin = time.monotonic()
        assert tap.take(0.05) == []
        assert 0.04 < time.monotonic() - begin < 5
        tap.stop()
        assert list(tap) == []
        assert tap.ended is None


@pytest.mark.parametrize(
    "request_", [b'"cells":3', b'"cells":4294967296', b'"snap":-1', b'"ids":["x"]', b'"more":1']
)
def test_impossible_wishes_are_refused(broker: BrokerProcess, request_: bytes) -> None:
    with libraries(broker.path, 1) as (asker,):
        asker.send(b'{"request":"tap",' + request_ + b"}")
        assert b"error" in asker.socket.recv(4096)
