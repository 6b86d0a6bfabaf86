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
