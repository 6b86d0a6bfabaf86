"""A socket that moves after its peer has gone, in whatever way, loses no byte either."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from test_descriptors import MOVERS, compare, is_last_words
from test_transcripts import scenarios

from behaviour.two_ends import same
from conftest import PROGRAMS
from sessions import Session

# With ports of its own, which no other connection of this machine has.
IN_A_NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.mark.parametrize("name", [name for name in scenarios(MOVERS) if is_last_words(name)])
def test_the_transcript_is_the_same(
    name: str, plain: Session, fused: Session, programs: Path
) -> None:
    compare(name, plain, fused, programs)


@pytest.mark.parametrize("side", ["s", "c"])
@pytest.mark.parametrize("family", ["4", "6", "mapped"])
def test_of_a_killed_peer_comes_all_under_the_same_names(
    family: str, side: str, plain: Session, lazily_fused: Session
) -> None:
    if os.getuid() != 0:
        pytest.skip("making a network namespace needs root")
    command = [*IN_A_NAMESPACE, sys.executable, str(PROGRAMS / "killed_peer.py"), family, side]
    expected, done = plain.run(command), lazily_fused.run(command)
    assert "fused" in done.stderr
    assert done.stdout == expected.stdout


@pytest.mark.parametrize("scenario", ["restart", "whole", "stopped", "epoll", "poll"])
def test_a_new_connection_is_in_nobodys_way(
    plain: Session, lazily_fused: Session, scenario: str
) -> None:
    """Nor is there one where the process itself goes on with more than TCP surely takes."""
    command = [sys.executable, str(PROGRAMS / "after_kill.py"), scenario]
    expected, done = plain.run(command), lazily_fused.run(command)
    assert "fused" in done.stderr
    assert done.stdout == expected.stdout == "True\n"


def test_a_stranger_who_connects_meanwhile_gets_nothing(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    said = same(plain, lazily_fused, programs / "renewed", "")
    assert said == "6 bytes, then 0; a stranger got nothing\n"


@pytest.mark.parametrize("reads", ["exec", "pass", "all", "peek", "pieces", "edges"])
@pytest.mark.parametrize("leaves", ["exec", "child", "pass", "option", "closes"])
def test_of_a_peer_that_left_its_ring_comes_all(
    leaves: str, reads: str, plain: Session, lazily_fused: Session
) -> None:
    """To whoever holds the socket then."""
    command = [sys.executable, str(PROGRAMS / "both_move.py"), leaves, reads, "30000"]
    command += ["0" if leaves == "closes" else "10000"]
    expected, done = plain.run(command), lazily_fused.run(command)
    assert "fused" in done.stderr
    assert done.stdout == expected.stdout
