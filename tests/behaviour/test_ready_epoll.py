"""What epoll_wait tells of fused sockets: as on TCP."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from behaviour.two_ends import same
from conftest import PROGRAMS
from sessions import Session


@pytest.fixture
def program(programs: Path) -> Path:
    return programs / "ready_epoll"


def test_ready_rings_starve_nothing_when_there_is_room_for_one_event(
    plain: Session, fused: Session, program: Path
) -> None:
    assert "starved" not in same(plain, fused, program, "fair")


def test_a_ring_that_fills_faster_than_it_is_read_is_told_of(
    plain: Session, fused: Session, program: Path
) -> None:
    """Of many unread sends the first one's time is not known any more."""
    assert "starved" not in same(plain, fused, program, "fair-to-the-busy")


def test_input_that_one_thread_leaves_alone_is_told_to_the_others(
    plain: Session, fused: Session, program: Path
) -> None:
    assert same(plain, fused, program, "left-to-others") == "3 threads told\n"


def test_sockets_are_told_of_in_the_order_in_which_their_bytes_came(
    plain: Session, fused: Session, program: Path
) -> None:
    assert "out of order" not in same(plain, fused, program, "arrival")


@pytest.mark.parametrize("scenario", ["cancel", "cancel_busy"])
def test_a_thread_is_cancelled_in_epoll_wait(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    same(plain, fused, program, scenario)


@pytest.mark.parametrize("scenario", ["handler_closes", "handler_jumps"])
def test_a_signal_handler_runs_in_the_midst_of_epoll_wait(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    same(plain, fused, program, scenario)


def test_dispositions_of_signals_are_what_the_program_set(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "dispositions")


def test_a_set_that_is_closed_under_a_sleeper_stays_what_it_was(
    plain: Session, fused: Session, program: Path
) -> None:
    assert "told of the first" in same(plain, fused, program, "closed_set")


def test_a_set_outlives_the_first_of_its_descriptors(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "copied_set")


def test_a_child_inherits_a_set_that_another_thread_was_changing(
    plain: Session, fused: Session, program: Path
) -> None:
    """A race: an inherited set that is torn was not seen in 300 forks without the lock."""
    same(plain, fused, program, "forked_set")


@pytest.mark.parametrize("scenario", ["band", "band_room"])
def test_rdnorm_and_wrnorm_are_other_names_for_in_and_out(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    same(plain, fused, program, scenario)


def test_a_sleeper_hears_of_a_ready_socket_while_the_queue_of_tcp_is_full(
    plain: Session, lazily_fused: Session, program: Path
) -> None:
    assert "told of it" in same(plain, lazily_fused, program, "poked")


def test_a_sender_that_found_too_little_room_gives_an_edge_to_another_thread(
    plain: Session, fused: Session, program: Path
) -> None:
    """A race: one edge in some thousand was lost."""
    assert same(plain, fused, program, "edge_of_room") == "told each time\n"


@pytest.mark.parametrize("scenario", ["cold_set", "named_twice"])
def test_nobody_who_waits_is_kept_awake_by_who_does_not(
    plain: Session, fused: Session, program: Path, scenario: str
) -> None:
    assert "spun" not in same(plain, fused, program, scenario)


def test_a_peer_that_is_killed_with_bytes_unread_is_told_of_in_one_event(
    plain: Session, fused: Session, program: Path
) -> None:
    same(plain, fused, program, "killed")


def test_an_entry_outlives_its_descriptor_while_the_socket_is_passed(
    plain: Session, fused: Session, program: Path
) -> None:
    assert same(plain, fused, program, "passed").startswith("1, ")


def test_what_is_sent_to_a_dead_peer_is_answered_in_a_second_set(
    plain: Session, fused: Session, program: Path
) -> None:
    assert "second set: 1" in same(plain, fused, program, "dead-before")


def test_our_own_shutdown_of_reading_is_told_at_once(
    plain: Session, fused: Session, program: Path
) -> None:
    """Not taken for a peer's end that may be a death: it would be asked for again and again."""
    assert "events 0x0" not in same(plain, fused, program, "shut-reading")


def test_what_a_thread_changes_between_two_waits_is_told_to_it(
    plain: Session, fused: Session, program: Path
) -> None:
    """In the same way a room was lost that the peer made just when a send had found none."""
    assert ": 0," not in same(plain, fused, program, "changed-between-waits")


@pytest.mark.parametrize(
    "events",
    [["EPOLLOUT"], ["EPOLLIN"], ["EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLET"]],
    ids="-".join,
)
def test_of_a_peer_with_many_connections_all_are_told_of_when_it_is_killed(
    plain: Session, lazily_fused: Session, events: list[str]
) -> None:
    """One epoll_wait sees to no more than 64 doorbells; the others' were forgotten. And a death
    was told as a FIN to who does not ask for EPOLLRDHUP."""
    command = [sys.executable, str(PROGRAMS / "killed_many.py"), *events]
    said = plain.run(command, timeout=60).stdout
    assert "150" in said
    assert lazily_fused.run([*lazily_fused.prefix, *command], timeout=60).stdout == said


def test_input_by_ring_is_an_edge_while_earlier_input_lies_in_tcp(
    plain: Session, lazily_fused: Session
) -> None:
    """Who peeks until there is enough waits for each."""
    command = [sys.executable, str(PROGRAMS / "edges_at_the_switch.py")]
    assert plain.run(command, timeout=60).stdout == "30 300\n"
    assert lazily_fused.run([*lazily_fused.prefix, *command], timeout=100).stdout == "30 300\n"
