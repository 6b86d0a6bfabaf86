"""A socket that moves after its peer has gone, in whatever way, loses no byte either."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from test_descriptors import MOVERS, compare, is_last_words
from test_transcripts import scenarios

from behaviour.two_ends import same
from conftest import PROGRAMS, tool
from sessions import Session

# With ports of its own, which no other connection of this machine has.
IN_A_NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.mark.parametrize("name", [name for name in scenarios(MOVERS) if is_last_words(name)])
def test_the_transcript_is_the_same(
    name: str, plain: Session, fused: Session, programs: Path
) -> None:
    compare(name, plain, fused, programs)


IPV6_ALONE = "echo 1 >/proc/sys/net/ipv6/bindv6only"


def needs_a_namespace() -> None:
    if os.getuid() != 0:
        pytest.skip("making a network namespace needs root")


def says_the_same(plain: Session, fused: Session, command: list[str]) -> str:
    expected, done = plain.run(command), fused.run(command)
    assert "fused" in done.stderr
    assert done.stdout == expected.stdout
    return expected.stdout


@pytest.mark.parametrize("side", ["s", "c"])
@pytest.mark.parametrize("family", ["4", "6", "mapped"])
def test_of_a_killed_peer_comes_all_under_the_same_names(
    family: str, side: str, plain: Session, lazily_fused: Session
) -> None:
    needs_a_namespace()
    command = [sys.executable, str(PROGRAMS / "killed_peer.py"), family, side]
    says_the_same(plain, lazily_fused, [*IN_A_NAMESPACE, *command])


@pytest.mark.parametrize("side", ["s", "c"])
def test_it_comes_by_mapped_addresses_also_where_those_are_to_be_asked_for(
    side: str, plain: Session, lazily_fused: Session
) -> None:
    """As the program has, of a machine whose sockets of IPv6 are for that alone."""
    needs_a_namespace()
    asked = ["sh", "-c", f'{IPV6_ALONE} && exec "$@"', "sh"]
    command = [sys.executable, str(PROGRAMS / "killed_peer.py"), "mapped", side]
    says_the_same(plain, lazily_fused, [*IN_A_NAMESPACE, *asked, *command])


@pytest.mark.parametrize("scenario", ["restart", "whole", "stopped", "epoll", "poll"])
def test_a_new_connection_is_in_nobodys_way(
    plain: Session, lazily_fused: Session, scenario: str
) -> None:
    """Nor is there one where the process itself goes on with more than TCP surely takes."""
    command = [sys.executable, str(PROGRAMS / "after_kill.py"), scenario]
    assert says_the_same(plain, lazily_fused, command) == "True\n"


def test_where_nobody_can_connect_the_process_itself_reads_on(
    plain: Session, lazily_fused: Session
) -> None:
    needs_a_namespace()
    tool("nft")
    command = [*IN_A_NAMESPACE, sys.executable, str(PROGRAMS / "after_kill.py"), "firewall"]
    said = says_the_same(plain, lazily_fused, command)
    if said.startswith("no "):
        pytest.skip(said.strip())
    assert said == "True\n"


def test_where_there_is_one_number_left_the_process_itself_reads_on(
    plain: Session, lazily_fused: Session
) -> None:
    """A new connection takes two."""
    command = [sys.executable, str(PROGRAMS / "after_kill.py"), "last_number"]
    assert says_the_same(plain, lazily_fused, command) == "True\n"


def test_processes_forked_meanwhile_keep_nothing_of_a_new_connection(
    plain: Session, lazily_fused: Session
) -> None:
    """Neither its other end, whose FIN is to come, nor its listener."""
    needs_a_namespace()
    command = [*IN_A_NAMESPACE, sys.executable, str(PROGRAMS / "after_kill.py"), "forks"]
    assert says_the_same(plain, lazily_fused, command) == "True 0\n"


def test_a_stranger_who_connects_meanwhile_gets_nothing(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    said = same(plain, lazily_fused, programs / "renewed", "")
    assert said == "6 bytes, then 0; a stranger got nothing\n"


READS_ON = ["all", "peek", "pieces", "edges", "polled"]


@pytest.mark.parametrize("reads", ["exec", "pass", *READS_ON])
@pytest.mark.parametrize("leaves", ["exec", "child", "pass", "option", "closes"])
def test_of_a_peer_that_left_its_ring_comes_all(
    leaves: str, reads: str, plain: Session, lazily_fused: Session
) -> None:
    """To whoever holds the socket then."""
    command = [sys.executable, str(PROGRAMS / "both_move.py"), leaves, reads, "30000"]
    command += ["0" if leaves == "closes" else "10000"]
    says_the_same(plain, lazily_fused, command)


@pytest.mark.parametrize("reads", ["all", "edges", "polled"])
@pytest.mark.parametrize("leaves", ["corked", "paced", "repair"])
def test_nothing_comes_late_that_is_no_news(
    leaves: str, reads: str, plain: Session, lazily_fused: Session
) -> None:
    """Where TCP does not send at once, or not at all, what the ring's end would leave there."""
    if leaves == "repair" and os.getuid() != 0:
        pytest.skip("TCP_REPAIR needs CAP_NET_ADMIN")
    unread = "300000" if leaves == "paced" else "30000"  # several segments: one goes at once
    command = [sys.executable, str(PROGRAMS / "both_move.py"), leaves, reads, unread, "1000"]
    says_the_same(plain, lazily_fused, command)


@pytest.mark.parametrize("how", ["exit", "shutwr", "shutrdwr"])
def test_of_a_peer_that_ended_under_a_send_comes_all_that_was_sent(
    how: str, plain: Session, lazily_fused: Session
) -> None:
    """By a thread that slept for room when another one ended the connection."""
    command = [sys.executable, str(PROGRAMS / "cut_short.py"), how]
    assert says_the_same(plain, lazily_fused, command) == "True True\n"


def test_of_a_peer_that_closed_two_numbers_at_once_comes_all(
    plain: Session, lazily_fused: Session, programs: Path
) -> None:
    said = same(plain, lazily_fused, programs / "closed_at_once", "")
    assert said == "all came of 100 sockets\n"
