"""Sockets whose bytes are to be read another way, or no more (tests/programs/conn_moves.c)."""

from __future__ import annotations

from pathlib import Path

from two_ends import same

from sessions import Session


def test_a_receive_under_way_is_not_given_what_comes_for_the_next_owner_of_its_number(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_moves", "closed")
    assert '"to the first"' in said
