"""Peers that die in the midst of the switch (tests/programs/conn_reset.c)."""

from __future__ import annotations

from pathlib import Path

from behaviour.two_ends import same
from sessions import Session


def test_bytes_that_died_with_the_peer_are_no_broken_promise(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    said = same(plain, lazily_fused, programs / "conn_reset", "killed-in-the-switch")
    assert said == "-1 Connection reset by peer, 0 end, 0 end, \n"
