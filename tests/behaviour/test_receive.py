"""Receives: what wakes them, and what they then find (tests/programs/conn_receive.c)."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_ends import same

from sessions import Session


def test_a_thread_that_finds_its_byte_leaves_the_other_one_its_wake_up(
    plain: Session, fused: Session, programs: Path
) -> None:
    # A race, which was lost once in some 2000 rounds, so not each time.
    fused.environment["LOOPFUSE_SPIN_US"] = "0"
    said = same(plain, fused, programs / "conn_receive", "two-sleepers")
    assert said == "each byte woke a thread\n"


def test_a_receive_of_all_gets_more_than_the_sender_may_have_under_way(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_receive", "wait-for-all")
    assert said == "each receive got all\n"


def test_a_small_send_buffer_lets_the_low_water_mark_be_reached(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_receive", "low-water")
    assert said == "poll says 1, and there is as much\n"


def test_truncation_ends_with_what_was_asked_for(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_receive", "truncated")
    assert said == "100, then 70\n"


def test_a_peek_sees_past_the_end_of_a_ring(plain: Session, fused: Session, programs: Path) -> None:
    said = same(plain, fused, programs / "conn_receive", "peek-past-the-end")
    assert said == "2 ab 2 ab 2 ab\n"


@pytest.mark.parametrize("after", ["5", "6"])
def test_a_peek_sees_past_the_beginning_of_a_ring(
    plain: Session, lazily_fused: Session, programs: Path, after: str
) -> None:
    lazily_fused.environment["LOOPFUSE_AFTER"] = after
    said = same(plain, lazily_fused, programs / "conn_receive", "peek-past-the-beginning")
    assert said == "40 pairs\n"
