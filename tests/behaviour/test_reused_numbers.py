"""A number that is another file's before a call on the socket is over: none of the other's bytes.

The scenarios are in tests/programs/conn_numbers.c.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

KEPT_APART = "the other file got nothing\n"
UNREAD = "the other file has others'\n"


@pytest.fixture
def program(programs: Path) -> Path:
    return programs / "conn_numbers"


@pytest.mark.parametrize("how", ["replaced", "closed"])
def test_what_is_sent_again_all_arrives_though_the_number_is_given_up_meanwhile(
    plain: Session, fused: Session, program: Path, how: str
) -> None:
    said = same(plain, fused, program, f"{how}-in-a-resend")
    assert said == KEPT_APART + "the peer got all\n"


def test_a_first_send_that_waits_for_the_other_end_goes_to_the_socket(
    plain: Session, eagerly_fused: Session, program: Path
) -> None:
    said = same(plain, eagerly_fused, program, "replaced-in-a-first-send")
    assert said == KEPT_APART + "sent 4, the peer got word\n"


def test_a_receive_that_spins_reads_from_the_socket(
    plain: Session, fused: Session, program: Path
) -> None:
    fused.environment["LOOPFUSE_SPIN_US"] = "300000"
    said = same(plain, fused, program, "replaced-in-a-spin")
    assert said == 'received "mine"\n' + UNREAD


def test_a_receive_that_sleeps_reads_from_the_socket(
    plain: Session, fused: Session, program: Path
) -> None:
    said = same(plain, fused, program, "replaced-in-a-receive")
    assert said == 'received "mine"\n' + UNREAD


def test_a_send_that_sleeps_goes_to_the_socket(
    plain: Session, fused: Session, program: Path
) -> None:
    """A race, lost two times in three without the mend."""
    said = same(plain, fused, program, "replaced-in-a-send")
    assert said == "sent 4, the peer got it\n" + KEPT_APART


@pytest.mark.parametrize("how", ["replaced", "closed"])
def test_a_vfork_child_sends_nothing_again_by_numbers_that_are_its_own(
    plain: Session, fused: Session, program: Path, how: str
) -> None:
    said = same(plain, fused, program, f"{how}-in-a-vfork-child")
    assert KEPT_APART in said
    assert said.endswith('the peer got "12345678"\n')
