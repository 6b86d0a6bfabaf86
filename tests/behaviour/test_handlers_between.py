"""Handlers that run between the steps of a call: it ends where it would on plain TCP, no later."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

NONE_LOST = "hardly any was lost\n"
CALLS = ["recv", "waitall", "send", "splice"]


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_that_closes_the_socket_ends_the_call(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    """Though it is one that restarts calls: this one is begun anew, without its socket."""
    said = same(plain, fused, programs / "handlers_between", f"close-{call}")
    assert said == f"at once, it: -1 {os.strerror(errno.EBADF)}\n"


@pytest.mark.parametrize("call", CALLS)
def test_a_handler_that_replaces_the_socket_ends_the_call(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    said = same(plain, fused, programs / "handlers_between", f"replace-{call}")
    fails = "it fails" if call == "splice" else f"it: -1 {os.strerror(errno.ENOTSOCK)}"
    assert said == f"at once, {fails}\n"


def test_a_handler_that_replaces_the_socket_with_a_nonblocking_one_ends_the_call(
    plain: Session, fused: Session, programs: Path
) -> None:
    """Begun anew, the call looks at the flags of the socket that it has now."""
    said = same(plain, fused, programs / "handlers_between", "replace-nonblocking")
    assert said == f"at once, it: -1 {os.strerror(errno.EAGAIN)}\n"


@pytest.mark.parametrize("call", ["recv", "send"])
@pytest.mark.parametrize("signal", ["trap", "segv"])
def test_a_signal_of_a_fault_from_another_process_ends_the_call(
    plain: Session, fused: Session, programs: Path, signal: str, call: str
) -> None:
    said = same(plain, fused, programs / "handlers_between", f"{signal}-{call}")
    assert said == f"at once, it: -1 {os.strerror(errno.EINTR)}\n"


@pytest.mark.parametrize("pipe", ["full", "empty"])
def test_a_restarting_handler_in_the_wait_for_a_pipe_does_not_end_a_splice_with_a_limit(
    plain: Session, fused: Session, programs: Path, pipe: str
) -> None:
    """A limit makes handlers end waits for the socket, of which there was none yet."""
    assert same(plain, fused, programs / "handlers_between", f"{pipe}-pipe") == "splice: 1\n"


def test_a_signal_beside_a_restarting_timer_ends_a_receive(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert same(plain, fused, programs / "handlers_between", "timer") == NONE_LOST


def test_a_signal_to_the_process_goes_to_the_main_thread_that_waits(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "handlers_between", "main-thread")
    assert said == "in the main thread: 20 of 20\n"


@pytest.mark.parametrize(
    ("scenario", "outcome"),
    [("much", "a part"), ("little", "all"), ("limit", "a part"), ("closed", "all")],
)
def test_a_first_send_waits_for_its_ring_no_longer_than_it_would_for_room(
    plain: Session, eagerly_fused: Session, programs: Path, scenario: str, outcome: str
) -> None:
    said = same(plain, eagerly_fused, programs / "handlers_between", f"first-{scenario}")
    assert said == f"{outcome}, in time\n"


def test_a_signal_in_the_call_that_claims_the_connection_ends_it(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    lazily_fused.environment["LOOPFUSE_AFTER"] = "20"
    assert same(plain, lazily_fused, programs / "handlers_between", "claim") == NONE_LOST


def test_a_handler_during_the_copy_ends_a_receive_of_all_with_a_part(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert same(plain, fused, programs / "handlers_between", "waitall") == NONE_LOST


def test_a_signal_just_before_the_first_of_two_messages_is_not_slept_over(
    plain: Session, fused: Session, programs: Path
) -> None:
    assert same(plain, fused, programs / "handlers_between", "messages") == NONE_LOST


def test_a_restarting_handler_before_the_first_of_two_messages_does_not_end_the_call_after_it(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    """On a socket that stays plain, of which the kernel itself begins the wait anew."""
    lazily_fused.environment["LOOPFUSE_AFTER"] = "100000000"
    words = [str(programs / "handlers_between"), "plain-messages"]
    done = lazily_fused.run([*lazily_fused.prefix, *words], timeout=60.0)
    assert done.stdout == plain.run(words, timeout=60.0).stdout == "messages: 2\n"
    assert done.stderr == "plain\n"


def test_a_poll_that_was_stopped_beyond_its_limit_ends_when_it_goes_on(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "handlers_between", "stopped-poll")
    assert said == "poll: 0\nin time\n"
