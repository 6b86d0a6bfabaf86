"""What epoll_wait tells of fused sockets: as on TCP."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


@pytest.fixture
def program(programs: Path) -> Path:
    return programs / "ready_epoll"


def test_ready_rings_starve_nothing_when_there_is_room_for_one_event(
    plain: Session, fused: Session, program: Path
) -> None:
    assert "starved" not in same(plain, fused, program, "fair")


@pytest.mark.parametrize("scenario", ["cancel", "cancel_busy"])
def test_a_thread_is_cancelled_in_epoll_wait(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    same(plain, fused, program, scenario, timeout=15)


@pytest.mark.parametrize("scenario", ["handler_closes", "handler_jumps"])
def test_a_signal_handler_runs_in_the_midst_of_epoll_wait(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    same(plain, fused, program, scenario, timeout=15)


def test_dispositions_of_signals_are_what_the_program_set(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "dispositions")
