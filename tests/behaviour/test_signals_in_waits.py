"""Signals while a call waits: what restarts on plain TCP restarts fused, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


@pytest.mark.parametrize("scenario", ["names", "ssignal"])
def test_handlers_count_by_whatever_name_they_were_set(
    plain: Session, lazily_fused: Session, programs: Path, scenario: str
) -> None:
    said = same(plain, lazily_fused, programs / "wait_signals", scenario)
    assert "recv: 1\n" in said


@pytest.mark.parametrize("call", ["recv", "recv-handlers", "send"])
def test_a_change_of_user_by_another_thread_goes_unnoticed(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    said = same(plain, fused, programs / "wait_signals", f"setuid-{call}")
    assert said == f"{call.split('-')[0]}: 1\n"


@pytest.mark.parametrize("call", ["recv", "send"])
def test_a_time_limit_set_under_a_call_binds_it_once_a_handler_has_restarted_it(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    said = same(plain, fused, programs / "wait_signals", f"limit-{call}")
    assert said == f"{call}: -1 {os.strerror(errno.EAGAIN)}\n"


@pytest.mark.parametrize("scenario", ["stop", "stop-handlers"])
def test_waits_go_on_after_a_stop(
    plain: Session, fused: Session, programs: Path, scenario: str
) -> None:
    said = same(plain, fused, programs / "wait_signals", scenario)
    assert "recv: 1\npoll: 1\n" in said


def test_a_wait_takes_no_number_that_another_thread_would_get(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert "number" in same(plain, fused, programs / "wait_signals", "numbers")


def test_a_blocked_signal_does_not_keep_a_wait_awake(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert "it slept" in same(plain, fused, programs / "wait_signals", "pending")


def test_a_jump_out_of_a_wait_leaves_no_waiter_behind(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert "it slept" in same(plain, fused, programs / "wait_signals", "jumps")


def test_a_close_after_a_jump_out_of_a_receive_is_told_to_the_peer(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "wait_signals", "close-after-a-jump")
    assert said.startswith("jumped\nsend: ")


def test_real_time_signals_that_are_held_back_keep_their_order(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "wait_signals", "order")
    assert said == "1 2 3 4 5 \n"


def test_a_jump_out_of_a_send_leaves_it_to_others_to_send(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "wait_signals", "jump-out-of-send")
    assert said == "send: 1\nanother thread's: done\n"


def test_a_handler_that_receives_takes_no_wake_up_from_the_receive_that_it_interrupts(
    plain: Session, fused: Session, programs: Path
) -> None:
    """A race, lost within a second without the mend."""
    said = same(plain, fused, programs / "wait_signals", "receiving-handler")
    assert said == "it went on\n"


@pytest.mark.parametrize("scenario", ["long-sendfile", "shut-send"])
def test_a_signal_ends_a_long_send_though_it_comes_before_that_sleeps(
    plain: Session, fused: Session, programs: Path, scenario: str
) -> None:
    said = same(plain, fused, programs / "wait_signals", scenario)
    assert said == "it ended each time\n"


@pytest.mark.parametrize(
    ("scenario", "outcome"),
    [
        ("restart", "recv: 1"),
        ("recv", f"recv: -1 {os.strerror(errno.EINTR)}"),
        ("abort", f"recv: -1 {os.strerror(errno.EINTR)}"),
        ("limit", f"recv: -1 {os.strerror(errno.EINTR)}"),
        ("splice", f"splice: -1 {os.strerror(errno.EINTR)}"),
        ("send", f"send: -1 {os.strerror(errno.EINTR)}"),
        ("poll", f"poll: -1 {os.strerror(errno.EINTR)}"),
        ("select", f"select: -1 {os.strerror(errno.EINTR)}"),
        ("epoll", f"epoll_wait: -1 {os.strerror(errno.EINTR)}"),
    ],
)
def test_a_signal_in_a_spin_is_not_slept_over(
    plain: Session, fused: Session, programs: Path, scenario: str, outcome: str
) -> None:
    """A handler that sets a flag for its loop: on TCP the call sleeps then, and ends."""
    fused.environment["LOOPFUSE_SPIN_US"] = "1000000"
    assert outcome + "\n" == same(plain, fused, programs / "wait_signals", f"spin-{scenario}")


@pytest.mark.parametrize("call", ["ppoll", "epoll_pwait"])
def test_a_signal_that_the_call_masks_does_not_come_in_its_spin(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    fused.environment["LOOPFUSE_SPIN_US"] = "1000000"
    said = same(plain, fused, programs / "wait_signals", f"spin-{call}-masked")
    assert said == f"{call}: 1\nhandled: 1\n"
