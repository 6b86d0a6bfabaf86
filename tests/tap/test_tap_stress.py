"""Taps that come and go while many threads send by every call there is: no byte may suffer, and
what a tap saw must be a piece of what was sent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import loopfuse
from broker_fixtures import BrokerProcess
from conftest import sanitizer_build
from sessions import Session, free_port


class Seen:
    """What taps saw of a stress, or of several."""

    taps = packets = 0


def stress_once(session: Session, programs: Path, size: int, *, defuse: bool, seen: Seen) -> None:
    from loopfuse._control import order_defuse

    assert session.broker is not None
    port, connections = free_port(), 4
    stress = str(programs / "stress")
    words = [*session.prefix, stress]
    with session.server([*words, "server", str(port), str(connections)], port) as server:
        command = [*words, "client", str(port), str(connections), str(size), "7"]
        client = subprocess.Popen(command, env=session.environment, stdout=subprocess.PIPE)
        while client.poll() is None:
            # Two at a time, a small and a large ring: bits and views are used again and again.
            with (
                loopfuse.tap(ports=[port], path=session.broker.path, buffer=1 << 18) as one,
                loopfuse.tap(
                    "tcp", ports=[port], path=session.broker.path, snap=64, buffer=1 << 21
                ) as other,
            ):
                for tap in (one, other, one, other):
                    for packet in tap.take(0.003) or []:
                        assert len(packet.payload) <= packet.length <= 32768
                        seen.packets += 1
                assert one.statistics().damaged == other.statistics().damaged == 0
            seen.taps += 2
            if defuse and seen.taps % 6 == 0:
                order_defuse(session.broker.path, None)
        assert client.communicate()[0] == b"ok\n"
        assert client.returncode == 0
        assert server.wait(60) == 0


def stress_with_taps(session: Session, programs: Path, size: int, *, defuse: bool) -> None:
    """Again where a stress was over before there were enough taps: on a fast machine, or one that
    does something else meanwhile."""
    seen, enough, most = Seen(), 8 if defuse else 4, 10
    for _ in range(most):
        stress_once(session, programs, size, defuse=defuse, seen=seen)
        if seen.taps >= enough and seen.packets:
            return
    pytest.fail(f"{most} times over after {seen.taps} taps and {seen.packets} packets in all")


@pytest.mark.parametrize("defuse", [False, True], ids=["to the end", "defused"])
def test_no_byte_suffers_from_taps(fused: Session, programs: Path, defuse: bool) -> None:
    stress_with_taps(fused, programs, 150_000_000, defuse=defuse)


@pytest.mark.parametrize("build", ["LOOPFUSE_ASAN_LIBRARY", "LOOPFUSE_TSAN_LIBRARY"])
def test_sanitizers_find_nothing(session_broker: BrokerProcess, programs: Path, build: str) -> None:
    session = Session.under(sanitizer_build(build), session_broker, eager=False)
    stress_with_taps(session, programs, 40_000_000, defuse=False)
