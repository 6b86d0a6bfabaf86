"""Threads that are cancelled (pthread_cancel) in calls on a connection."""

from __future__ import annotations

from pathlib import Path

from behaviour.two_ends import same
from sessions import Session


def test_later_connections_are_fused_after_a_thread_was_cancelled_as_it_claimed_one(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "cancelled", "first-sends")
    assert said == "14 threads were cancelled\n"


def test_a_cancelled_thread_ends_in_the_same_calls(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "cancelled", "points")
    assert said.count("came to its end") > 10
    assert "\nsend: was ended" in said
    for call in ("select", "pselect", "recv"):
        assert f"\n{call}: was ended" in said
