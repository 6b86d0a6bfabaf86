"""Nobody sleeps over what it waits for (tests/programs/slept_over.c)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

IN_EACH_WAY = ["recv", "poll", "epoll"]


@pytest.fixture
def sleepy(lazily_fused: Session) -> Session:
    lazily_fused.environment["LOOPFUSE_SPIN_US"] = "0"
    return lazily_fused


def test_a_bounded_writer_brings_its_reader_to_the_low_water_mark(
    plain: Session, sleepy: Session, programs: Path
) -> None:
    assert same(plain, sleepy, programs / "slept_over", "bounded-writer") == "woken\n" * 2


@pytest.mark.parametrize("way", IN_EACH_WAY)
def test_a_low_water_mark_is_reached_by_tcp_and_ring_together(
    plain: Session, sleepy: Session, programs: Path, way: str
) -> None:
    scenario = f"low-water-at-the-switch,{way}"
    assert same(plain, sleepy, programs / "slept_over", scenario) == ("1010 " * 4 + "\n") * 2


def test_a_low_water_mark_is_reached_by_ring_and_tcp_together(
    plain: Session, sleepy: Session, programs: Path
) -> None:
    assert same(plain, sleepy, programs / "slept_over", "low-water-behind-the-ring") == "120\n"


@pytest.mark.parametrize("way", IN_EACH_WAY)
def test_who_did_not_get_tcps_last_bytes_gets_the_rings_first(
    plain: Session, sleepy: Session, programs: Path, way: str
) -> None:
    scenario = f"two-at-the-switch,{way}"
    assert same(plain, sleepy, programs / "slept_over", scenario) == "woken\n" * 8


@pytest.mark.parametrize("way", IN_EACH_WAY)
@pytest.mark.parametrize("scenario", ["asleep-before-a-fork", "number-taken-over"])
def test_a_doorbell_that_others_hear_or_take_over_wakes_who_sleeps_at_it(
    plain: Session, sleepy: Session, programs: Path, scenario: str, way: str
) -> None:
    assert same(plain, sleepy, programs / "slept_over", f"{scenario},{way}") == "woken\n"


@pytest.mark.parametrize("way", IN_EACH_WAY)
def test_a_doorbell_that_is_given_up_was_heard(
    plain: Session, sleepy: Session, programs: Path, way: str
) -> None:
    if os.getuid() != 0:
        pytest.skip("holding up a send needs userfaultfd, and that root")
    assert same(plain, sleepy, programs / "slept_over", f"number-given-up,{way}") == "woken\n"


@pytest.mark.parametrize(
    "scenario", ["added-while-shared", "left-by-another", "armed-again", "room-for-system-calls"]
)
def test_who_sleeps_is_woken(
    plain: Session, sleepy: Session, programs: Path, scenario: str
) -> None:
    assert same(plain, sleepy, programs / "slept_over", scenario) == "woken\n"


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("death-in-an-inherited-set", "rests\n"),
        ("left-to-a-child", "rests\n"),
        ("left-to-one-of-two", "woken\n"),
    ],
)
def test_a_doorbell_is_its_childrens_once_the_parent_is_gone(
    plain: Session, sleepy: Session, programs: Path, scenario: str, said: str
) -> None:
    assert same(plain, sleepy, programs / "slept_over", scenario) == said


def test_a_vfork_child_sends_to_one_who_leaves_the_ring(
    plain: Session, sleepy: Session, programs: Path
) -> None:
    said = same(plain, sleepy, programs / "slept_over", "sent-by-a-vfork-child")
    assert said == "sent 1, in all 101\n"
