"""Descriptors that the C library closes, replaces, reads or leaves past its public names."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

SCENARIOS = [
    "file_becomes_the_socket",
    "fdopen_with_a_busy_peer",
    "last_but_one_closed_by_system_call",
    "last_but_one_closed_by_fclose",
    "freopen_replaces_it",
    "daemon_replaces_it",
    "forkpty_replaces_it",
    "login_tty_replaces_it",
    "asynchronous",
    "asynchronous_list",
    "cancelled_in_receive",
    "quick_exit_lets_go",
    "daemon_lets_go",
    "limit_stays",
    "accepted_without_a_length",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_numbers_past_the_public_names(
    plain: Session, fused: Session, programs: Path, scenario: str
) -> None:
    assert same(plain, fused, programs / "names_numbers", scenario)
