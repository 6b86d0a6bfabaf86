"""Sends: in which order, and who is told of room (tests/programs/conn_send.c)."""

from __future__ import annotations

from pathlib import Path

from two_ends import same

from sessions import Session


def test_no_thread_overtakes_what_another_one_sends_again(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "resent-first")
    assert said == "all in order\n"


def test_a_writer_is_told_of_the_room_that_a_fresh_look_would_find(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "room-again")
    assert said == "told\n"
