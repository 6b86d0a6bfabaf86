"""Sends: in which order, and who is told of room (tests/programs/conn_send.c)."""

from __future__ import annotations

from pathlib import Path

from behaviour.two_ends import same
from sessions import Session

CALLS_WITH_LISTS = ("writev", "sendmsg", "readv", "recvmsg")


def test_no_thread_overtakes_what_another_one_sends_again(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "resent-first")
    assert said == "all in order\n"


def test_what_is_sent_again_waits_for_no_peer_that_does_not_read(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "resent-at-once")
    assert said == (
        "a send that does not wait returned while the peer had not read\n"
        "the send buffer is as it was\nthe peer got all\n"
    )


def test_what_is_sent_again_makes_no_buffer_smaller_and_waits_for_no_limit_of_the_programs(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "resent-past-limits")
    assert said == (
        "a send that does not wait returned while the peer had not read\n"
        "the send buffer is as it was\nthe peer got all\nthe limit is 1\n"
    )


def test_a_sleeper_that_could_not_be_rung_for_is_rung_for_with_the_next_send(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "rung-at-last")
    assert said == "the peer got 2 of 2\n"


def test_an_exec_by_a_vfork_child_loses_nothing_that_the_peer_wants_by_tcp(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "exec-in-our-memory")
    assert said == "the peer got 12345\n"


def test_what_it_writes_then_comes_behind_bytes_that_the_peer_has_just_asked_for(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "exec-of-a-writer")
    assert said == "the peer got 12345\n"


def test_a_receive_ends_before_urgent_data_whoever_wanted_the_ring_to_end(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "urgent-behind-a-wish")
    assert said == "before\nafter\n"


def test_minus_one_byte_is_refused_as_ever(plain: Session, fused: Session, programs: Path) -> None:
    said = same(plain, fused, programs / "conn_send", "minus-one")
    assert said == "write: -1 Bad address\nread: -1 Bad address\nthe peer got: 1 \n"


def test_a_buffer_of_far_too_many_bytes_is_refused_as_ever(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "far-too-much")
    refused = "".join(f"{call}: -1 Invalid argument\n" for call in CALLS_WITH_LISTS)
    assert said == f"{refused}the peer got: 1 \n"


def test_a_writer_is_told_of_the_room_that_a_fresh_look_would_find(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "room-again")
    assert said == "told\n"


def test_a_signal_is_handled_while_sendfile_sends_again_what_the_peer_wants(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "signal-in-sendfile")
    assert said == "the signal was handled\nthe peer got all\n"


def test_a_shutdown_under_a_send_that_goes_on_in_tcp_is_no_error_for_receives(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "shutdown-under-a-send")
    assert said == 'a part was sent\npoll: 0; then 5: "hello"\n'


def test_flags_that_no_socket_takes_are_refused_as_ever(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_send", "refused-flags")
    assert said.endswith("pwritev2 with flags of files: 3\nthe peer got 3\n")
