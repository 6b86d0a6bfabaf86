"""What a peer can make a call on its own connection do: wait, but neither for ever nor busily.

Each lie here once kept a thread of the victim running in circles.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from loopfuse import _segments as segments
from loopfuse._reasons import Reason
from malice import hostile
from malice.hostile import Hostile, NotFusedError
from malice.victim import Victim, sanitized
from sessions import Session

CLOSES_WHEN_TOLD = 0
TRIES = 5
"""To be fused with a victim: on a busy machine one may claim too late."""


@pytest.fixture
def victim(built: Path, session_broker: BrokerProcess) -> Iterator[Victim]:
    process = Victim(built / "victim", Session.under(sanitized(), session_broker, eager=True))
    yield process
    assert process.stop() == ""
    assert process.process.returncode == 0


@contextmanager
def peer_of(victim: Victim, broker: BrokerProcess, mode: str, seed: int = 1) -> Iterator[Hostile]:
    """A peer that the victim is about to be fused with; it begins when the ring is watched."""
    for _ in range(TRIES):
        victim.order(f"serve 1 {mode} {seed}")
        try:
            peer = Hostile(broker.path, victim.port, random.Random(1))
            break
        except NotFusedError:
            assert victim.hears("over 1 ") is not None
    else:
        raise AssertionError(f"not fused in {TRIES} tries")
    try:
        yield peer
    finally:
        peer.go()


def be_read(peer: Hostile) -> None:
    """Both directions are in the ring, and the victim waits for more."""
    peer.watch_the_ring()
    peer.be_watched()
    peer.fuse()
    peer.send(5)
    eventually(lambda: peer.get(0, hostile.TAIL) == 5, "it reads the ring")


def end_where_it_was_read(peer: Hostile) -> None:
    """Behind what be_read() has sent."""
    peer.put(0, hostile.END_POS, 5)
    peer.put(0, hostile.MARK, segments.Mark.ENDED)


def test_a_peek_that_waits_can_be_interrupted_beside_bytes_past_the_ring(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    with peer_of(victim, session_broker, "peek") as peer:
        peer.watch_the_ring()
        peer.be_watched()
        peer.fuse()
        peer.send(5)
        peer.sock.send(b"past the library")
        for _ in range(20):
            victim.order("interrupt 1")
            if victim.hears("over 1 ", 1) is not None:
                return
        raise AssertionError("not to be interrupted")


def test_a_receive_ends_with_tcp_though_the_peer_says_it_takes_its_bytes_back(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    with peer_of(victim, session_broker, "receive") as peer:
        be_read(peer)
        peer.put(0, hostile.WISH, 3)  # TAKEN, which the victim never asked for
        peer.sock.shutdown(1)
        assert victim.hears("over 1 ") is not None


def test_a_peer_that_is_held_up_while_it_takes_its_bytes_back_is_no_liar(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    """As by a quota of CPU time, between two stores; its FIN is older than that."""
    with peer_of(victim, session_broker, "receive") as peer:
        be_read(peer)
        peer.put(0, hostile.WISH, 3)
        peer.sock.shutdown(1)
        assert victim.hears("over 1 ", 0.1) is None
        end_where_it_was_read(peer)
        assert victim.hears("over 1 ") is not None
        assert peer.get(1, hostile.REASON) != Reason.CORRUPT


def test_a_copy_that_never_comes_is_waited_for_asleep(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    """Promised by an end mark, before FIN; and after that nothing is waited for any more."""
    with peer_of(victim, session_broker, "receive") as peer:
        be_read(peer)
        peer.put(0, hostile.COPIED, 4096)
        end_where_it_was_read(peer)
        peer.ring()
        peer.sock.send(b"a part of it")
        eventually(lambda: all_sleep(victim), "it sleeps")
        assert victim.hears("over 1 ", 0.1) is None
        peer.sock.shutdown(1)
        assert victim.hears("over 1 ") is not None


def own_descriptors(victim: Victim) -> set[str]:
    """Those that the program knows: the library's own have greater numbers."""
    return {fd.name for fd in Path(f"/proc/{victim.process.pid}/fd").iterdir() if len(fd.name) < 4}


def all_sleep(victim: Victim) -> bool:
    """Are all its threads asleep? One that goes round busily never is."""
    tasks = Path(f"/proc/{victim.process.pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "S" for task in tasks)


@contextmanager
def closed_under_a_receive(
    victim: Victim, broker: BrokerProcess, *, fused: bool
) -> Iterator[Hostile]:
    """Another thread of the victim has closed the socket in which a receive sleeps."""
    victim.state()  # it answers: it has begun
    before = own_descriptors(victim)
    with peer_of(victim, broker, "closed", CLOSES_WHEN_TOLD) as peer:
        peer.watch_the_ring()
        peer.be_watched()
        if fused:
            peer.fuse()
            peer.ring()
        victim.order("close 1")
        eventually(lambda: own_descriptors(victim) == before, "it has closed the socket")
        yield peer
        peer.ring()
        assert victim.hears("over 1 ") is not None


def test_an_impossible_position_ends_a_receive_whose_socket_was_closed(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    with closed_under_a_receive(victim, session_broker, fused=True) as peer:
        peer.put(0, hostile.HEAD, 1 << 40)


def test_bytes_of_tcp_that_never_come_end_a_receive_whose_socket_was_closed(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    with closed_under_a_receive(victim, session_broker, fused=False) as peer:
        peer.put(0, hostile.TCP_TOTAL, 100)
        peer.put(0, hostile.MARK, segments.Mark.FUSED)


def test_a_receive_sleeps_whose_socket_was_closed_before_an_empty_ring(
    victim: Victim, session_broker: BrokerProcess
) -> None:
    """Nobody lies here: the peer has switched, and sends later."""
    with closed_under_a_receive(victim, session_broker, fused=False) as peer:
        peer.fuse()
        peer.ring()
        eventually(lambda: all_sleep(victim), "it sleeps")
        peer.send(5)
