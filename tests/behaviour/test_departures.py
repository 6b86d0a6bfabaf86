"""Processes on their way out that still have the socket (tests/programs/departures.c)."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

_FIVE = "".join(f"{n} came back\n" for n in range(1, 6))

SCENARIOS = {
    "exec-fails": _FIVE + "it ended with 0\n",
    "exit-takes-long": _FIVE + "it ended with 0\n",
    "exec-succeeds": "it is there\n",
    "closed-before-exec-fails": (
        "7 bytes were unread\n200000 bytes sent\n200000 bytes, then the end\n"
    ),
    "closed-before-exec-succeeds": "0 bytes, then Connection reset by peer\n",
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_process_holds_its_socket_until_it_is_gone(
    plain: Session, lazily_fused: Session, programs: Path, scenario: str
) -> None:
    """A parent's close meanwhile is not the last; once it is gone, it is in nobody's way."""
    assert same(plain, lazily_fused, programs / "departures", scenario) == SCENARIOS[scenario]


def test_who_exits_has_his_sockets_until_the_last_destructor(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    """What was unread when exit began, and is read there, resets nothing."""
    said = same(plain, lazily_fused, programs / "parting", "")
    assert said == "bye, the end, and it is gone\n"
