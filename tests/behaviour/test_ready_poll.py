"""What poll and select tell of fused sockets: as on TCP."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


@pytest.fixture
def program(programs: Path) -> Path:
    return programs / "ready_poll"


def test_a_mask_lets_a_pending_signal_in_though_there_is_no_time_to_wait(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "at_once")


@pytest.mark.parametrize("scenario", ["wide", "high"])
def test_select_takes_more_bits_than_an_fd_set_has(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    same(plain, fused, program, scenario)


@pytest.mark.parametrize("scenario", ["interrupted_poll", "interrupted_epoll"])
def test_each_signal_ends_the_sleep_on_a_socket_that_a_child_shares(
    plain: Session, lazily_fused: Session, program: Path, scenario: str
) -> None:
    """A race: a signal between two short sleeps. Without the mend epoll_wait loses some of 200."""
    same(plain, lazily_fused, program, scenario)


def test_poll_tells_of_the_file_that_has_the_number_now(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "reused")


def test_select_of_what_has_hung_up_ends_in_time(
    plain: Session, fused: Session, program: Path
) -> None:
    """Without the mend a limit is forgotten: poll says POLLHUP, select has no word for it here."""
    same(plain, fused, program, "hung_up")
