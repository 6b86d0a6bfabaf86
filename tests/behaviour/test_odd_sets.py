"""Epoll sets that another process, or thread, changes (tests/programs/odd_sets.c)."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_ends import same

from sessions import Session


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("shared", "and looked on\n"),
        ("closed", "it had 0\n"),
        ("without-a-bell", "0 1 1 0\n" * 3),
    ],
)
def test_a_wait_tells_of_nothing_but_what_the_program_put_there(
    plain: Session, fused: Session, programs: Path, how: str, says: str
) -> None:
    assert same(plain, fused, programs / "odd_sets", how) == says


@pytest.mark.parametrize("how", ["inherited", "inherited-after-a-sleep"])
def test_a_child_hears_in_a_set_of_a_socket_that_its_parent_has_closed(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    """As long as anybody holds the socket, its entry stays: so does what is rung by."""
    assert same(plain, fused, programs / "odd_sets", how) == "1 1 1 answers\n"
