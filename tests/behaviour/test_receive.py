"""Receives: what wakes them, and what they then find (tests/programs/conn_receive.c)."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
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
    assert said == "poll says 1\n"


def test_a_low_water_mark_holds_where_the_ring_ends(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_receive", "low-water-beyond-the-ring")
    assert said == "16 0123456789abcdef\n"


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


def test_a_receive_is_content_with_what_came_by_an_ended_ring(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert same(plain, fused, programs / "conn_receive", "nothing-follows") == "5 01234\n"


def test_a_peek_says_no_more_than_its_buffer_holds(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_receive", "peek-of-all")
    assert said == "10 0123456789\n"


def test_a_reset_is_told_to_one_of_the_processes_that_share_the_end(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_receive", "told-once")
    assert said.count("reset by peer") == 1


def test_bytes_of_tcp_from_behind_a_ring_do_not_overtake_it(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    said = same(plain, lazily_fused, programs / "conn_receive", "behind-the-ring")
    if said.startswith("nothing"):
        pytest.skip("no seccomp_unotify here")
    assert said == "ringtcp\n"


def test_a_socket_shut_for_reading_waits_for_tcps_last_bytes_before_the_ring(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    said = same(plain, lazily_fused, programs / "conn_receive", "shut-before-the-ring")
    assert said == "first the end, then 2 bytes: ab\n"


@pytest.mark.parametrize("scenario", ["urgent-in-tcp", "urgent-behind-the-ring"])
def test_a_receive_ends_before_urgent_data(
    plain: Session, fused: Session, programs: Path, scenario: str
) -> None:
    assert same(plain, fused, programs / "conn_receive", scenario) == "bc def \n"


def test_a_receive_by_tcp_beside_a_ring_fills_all_of_many_buffers(
    plain: Session, fused: Session, programs: Path
) -> None:
    """A short one would mean that there is no more, to who waits for the next edge."""
    assert same(plain, fused, programs / "conn_receive", "many-buffers") == "4000 4000 4000 4000\n"


@pytest.mark.parametrize("way", ["recv", "poll", "select", "epoll", "edge"])
def test_bytes_whose_time_is_over_between_two_looks_are_not_slept_over(
    plain: Session, fused: Session, programs: Path, way: str
) -> None:
    fused.environment["LOOPFUSE_SPIN_US"] = "0"
    assert same(plain, fused, programs / "held_clock", way) == "1 " * 8 + "\n"
