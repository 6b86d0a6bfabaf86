"""Receives: what wakes them, and what they then find (tests/programs/conn_receive.c)."""

from __future__ import annotations

from pathlib import Path

from two_ends import same

from sessions import Session


def test_a_thread_that_finds_its_byte_leaves_the_other_one_its_wake_up(
    plain: Session, fused: Session, programs: Path
) -> None:
    # A race, which was lost once in some 2000 rounds, so not each time.
    fused.environment["LOOPFUSE_SPIN_US"] = "0"
    said = same(plain, fused, programs / "conn_receive", "two-sleepers")
    assert said == "each byte woke a thread\n"
