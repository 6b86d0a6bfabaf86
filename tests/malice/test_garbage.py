"""A peer that writes garbage into the segment: its own connection may die, nothing else.

The victim runs under AddressSanitizer and UndefinedBehaviorSanitizer where that build is at hand.
It treats one hostile connection after the other in every way a program can, while two honest ones,
one fused and one plain, carry bytes that are compared.
"""

from __future__ import annotations

import ctypes
import random
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from loopfuse._control import fetch_rows
from malice.hostile import Hostile, NotFusedError
from malice.victim import PATIENCE, Victim, sanitized
from sessions import Session

ROUNDS = 40
MODES = (
    *("receive", "send", "turns", "flags", "poll", "select", "epoll", "splice"),
    *("threads", "closed", "processes", "shutdown", "leave"),
)


def one_round(victim: Victim, broker: BrokerProcess, seed: int, flipper: ctypes.CDLL) -> bool:
    """False: it was not fused."""
    rng = random.Random(seed)
    number, mode = seed % 1000 + 10, rng.choice(MODES)
    told = f"seed {seed}, mode {mode}"
    victim.order(f"serve {number} {mode} {rng.randrange(1, 1 << 31)}")
    print(told, flush=True)  # shown when it fails
    try:
        peer = Hostile(broker.path, victim.port, rng)
    except NotFusedError:
        assert victim.hears(f"over {number} ") is not None, told
        return False
    try:
        if rng.random() < 0.8:
            peer.behave()
        peer.do_harm(rng.randrange(20))
        if rng.random() < 0.4:
            beside = peer.flip_beside(flipper, 0.03)
            peer.do_harm(rng.randrange(30))
            beside.join()
        if rng.random() < 0.1:
            fetch_rows(broker.path, counters=True)
        if rng.random() < 0.2:
            # While the peer lives, and says nothing more: every call must be to be interrupted.
            interrupted = False
            for _ in range(20):
                victim.order(f"interrupt {number}")
                if victim.hears(f"over {number} ", 1) is not None:
                    interrupted = True
                    break
            assert interrupted, f"not to be interrupted: {told}"
            return True
    finally:
        peer.go()
    assert victim.hears(f"over {number} ") is not None, f"it goes on after its peer: {told}"
    return True


def test_garbage_in_the_segment_costs_its_own_connection_only(
    built: Path, session_broker: BrokerProcess, plain: Session, request: pytest.FixtureRequest
) -> None:
    first = int(request.config.getoption("--garbage-seed") or 1)
    count = int(request.config.getoption("--garbage") or ROUNDS)
    session = Session.under(sanitized(), session_broker, eager=True)
    flipper = ctypes.CDLL(str(built / "flip.so"))
    victim = Victim(built / "victim", session)
    try:
        with victim.talker(session, 1), victim.talker(plain, 2):
            eventually(lambda: session.fused_rows(victim.port) != [], "the honest one is fused")
            before = victim.state()
            fused = 0
            for seed in range(first, first + count):
                fused += one_round(victim, session_broker, seed, flipper)
                assert victim.process.poll() is None, f"the victim died: seed {seed}"
            assert fused > count // 2
            eventually(lambda: victim.state() == before, "all is given back", PATIENCE)
    finally:
        said = victim.stop()
        print(said)
    assert said == ""
    assert victim.process.returncode == 0
