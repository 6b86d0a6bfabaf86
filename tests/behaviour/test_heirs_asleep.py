"""A forked child and its parent share a socket, a set and a doorbell: that leaves neither of them
asleep (tests/programs/heirs_asleep.c)."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

LONG_US = "300000"
"""How long a wait spins where a test is to fork meanwhile."""


@pytest.fixture(scope="session")
def program(programs: Path) -> Path:
    return programs / "heirs_asleep"


@pytest.fixture
def sleepy(lazily_fused: Session) -> Session:
    lazily_fused.environment["LOOPFUSE_SPIN_US"] = "0"
    return lazily_fused


@pytest.mark.parametrize("scenario", ["taken-by-one-who-leaves", "taken-by-one-who-stays"])
def test_a_parent_hears_of_the_byte_behind_one_that_its_child_took(
    plain: Session, sleepy: Session, program: Path, scenario: str
) -> None:
    """Out of the set in which the parent slept, and sleeps on."""
    assert same(plain, sleepy, program, scenario) == "woken\n"


def test_a_parent_is_shown_a_held_byte_of_which_its_child_heard_first(
    plain: Session, sleepy: Session, program: Path
) -> None:
    """The child waited in the same set, and is gone before the byte is shown."""
    assert same(plain, sleepy, program, "held-back") == "woken\n"


@pytest.mark.parametrize("way", ["send", "poll", "epoll"])
def test_a_child_that_waits_for_room_hears_that_the_peer_was_killed(
    plain: Session, sleepy: Session, program: Path, way: str
) -> None:
    """By the doorbell, which is still the parent's; by "epoll" it waits in a set of its own."""
    said = same(plain, sleepy, program, f"peer-killed,{way}")
    assert said == "Connection reset by peer\n"


def test_a_thread_that_was_about_to_sleep_when_another_forked_is_woken(
    plain: Session, lazily_fused: Session, program: Path
) -> None:
    lazily_fused.environment["LOOPFUSE_SPIN_US"] = LONG_US
    assert same(plain, lazily_fused, program, "forked-before-the-sleep") == "woken\n"


def test_an_exec_that_fails_does_not_leave_the_doorbell_to_the_child(
    plain: Session, sleepy: Session, program: Path
) -> None:
    """A thread of the parent sleeps at it all the while."""
    assert same(plain, sleepy, program, "failed-exec") == "woken\n"
