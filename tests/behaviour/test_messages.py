"""sendmmsg and recvmmsg keep the kernel's rules; descriptors in them are handed on as plain TCP."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


@pytest.fixture(scope="session")
def program(programs: Path) -> Path:
    return programs / "names_messages"


def test_a_socket_passed_by_sendmmsg_is_handed_on_as_plain_tcp(
    plain: Session, fused: Session, program: Path
) -> None:
    assert "got 5 hello" in same(plain, fused, program, "pass_a_socket")


def test_no_message_follows_one_that_was_cut_short(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "cut_short")


def test_limits_of_several_messages_at_once(plain: Session, fused: Session, program: Path) -> None:
    assert "of 1100 messages at once: 1024" in same(plain, fused, program, "limits")


def test_urgent_data_end_a_receive_of_several(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "urgent")


def test_an_error_behind_a_message_is_kept_for_the_next_call(
    plain: Session, lazily_fused: Session, program: Path
) -> None:
    said = same(plain, lazily_fused, program, "kept_error")
    assert said == "1: abc, then -1 Connection reset by peer\n"


def test_the_kernel_answers_a_list_of_buffers_that_can_not_be(
    plain: Session, fused: Session, program: Path
) -> None:
    said = same(plain, fused, program, "nonsense")
    assert said == "nowhere: -1 Bad address\nnonsense: -1 Invalid argument\n"


def test_the_length_of_a_name_that_nobody_asked_for_is_left_alone(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "without_a_name")
