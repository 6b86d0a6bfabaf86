"""Sockets whose bytes are to be read another way, or no more (tests/programs/conn_moves.c)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


def test_a_receive_under_way_is_not_given_what_comes_for_the_next_owner_of_its_number(
    plain: Session, fused: Session, programs: Path
) -> None:
    said = same(plain, fused, programs / "conn_moves", "closed")
    assert said == (
        'begun on the first: 12 "to the first"\n'
        'on the second, of the same number: 13 "to the second"\n'
    )


READERS = {
    "stream": "one\ntwo\n",
    "standard-input": "one\ntwo\n",
    "part-meanwhile": "2 on, then e\ntwo\n",
    "all-meanwhile": "4 4 one\ntwo\n",
    "two-sets": "1 1, 4 one\n",
    "nested-set": "1, 4 one\n",
}


@pytest.mark.parametrize("reader", READERS)
def test_who_reads_by_tcp_gets_what_lies_in_the_ring_once_its_sender_is_back(
    plain: Session, lazily_fused: Session, programs: Path, reader: str
) -> None:
    said = same(plain, lazily_fused, programs / "conn_moves", reader)
    assert said == READERS[reader]


KEEPERS = {
    "other-program": "one\nit ended with 0\n",
    "older-file-actions": "one\n0, and it ended with 0\n",
    "unshared-numbers": "0, 4: one\ntwo\n",
    "refused-copy": "-1 Invalid argument, 4: one\n",
    "thread-unshares": "1 of 12345, 4: one\n1 of 12345, 4: two\n",
    "thread-unshares-a-range": "1 of 12345, 4: one\n1 of 12345, 4: two\n",
    "passed-by-number": "1 sent, and 4 are for who takes it\n",
    "passed-among-several": "1 sent, and 4 are for who takes it\n",
    "refused-range": "-1 Invalid argument, 4: one\n",
    "refused-by-the-limit": "-1 Bad file descriptor, 4: one\n",
}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_lies_in_the_ring_is_there_for_whoever_has_the_socket_afterwards(
    plain: Session, fused: Session, programs: Path, keeper: str
) -> None:
    """By names of calls, or with arguments, that the library has to see through."""
    said = same(plain, fused, programs / "conn_moves", keeper)
    assert said == KEEPERS[keeper]


@pytest.mark.parametrize("how", ["pidfd-spawned", "pidfd-spawned-by-path"])
def test_a_child_that_is_spawned_for_a_pidfd_gets_what_lies_in_the_ring(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    if not hasattr(ctypes.CDLL(None), "pidfd_spawn"):
        pytest.skip("glibc has it from 2.39 on")
    said = same(plain, fused, programs / "conn_moves", how)
    assert said == "one\n0, and it ended with 0\n"


def test_who_keeps_a_socket_that_his_child_hands_on_reads_on_meanwhile(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    """The child waits for a busy peer, which is to give back what is unread."""
    said = same(plain, lazily_fused, programs / "conn_moves", "beside-an-exec")
    assert said == "some came, each at once\n"


@pytest.mark.parametrize("scenario", ["handed-on", "handed-on-as-input"])
def test_the_library_of_a_socket_that_lives_on_elsewhere_is_gone(
    plain: Session, lazily_fused: Session, programs: Path, scenario: str
) -> None:
    said = same(plain, lazily_fused, programs / "conn_moves", scenario)
    assert said == "3 bytes, 0 bytes, another program got xyz, then the end\n"


def test_a_sender_that_becomes_another_program_leaves_nothing_behind_in_the_ring(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    """The peer, another program by then, has waited for the bytes for a second and gone on."""
    said = same(plain, lazily_fused, programs / "conn_moves", "sender-becomes-another")
    assert said == "another program got xyz, then the end\n"


HIGH = {"high-number": "4: one\none two three\n", "high-set": "1 of 12345, 4: one\n"}


@pytest.mark.parametrize("what", HIGH)
def test_a_number_above_the_library_s_table_is_the_socket_s_too(
    plain: Session, fused: Session, programs: Path, what: str
) -> None:
    said = same(plain, fused, programs / "conn_moves", what)
    if said.startswith("no "):
        pytest.skip(said.strip())
    assert said == HIGH[what]
