"""What is done with a client's socket before connect() counts as much as what comes later."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

FUSED = {
    "epoll_before_connect": "an entry in an epoll set that is older than the connection",
    "edges_before_connect": "the same, edge-triggered, as Boost.Asio has it",
    "room_since_connect": "the edge that says it is connected, asked for late",
    "dup_in_set_before_connect": "the set knows a copy, the program uses both",
    "deleted_before_connect": "it has left one set for another",
    "added_while_connecting": "one thread connects, another one adds it to the set",
    "added_while_pairing": "one thread's calls have it fused, another one adds it to the set",
    "dup_before_connect": "two descriptors, of which the first is closed later",
    "forked_child_has_gone": "it was shared for a while",
    "child_connects": "the parent has closed it",
    "connect_again": "refused once, then connected, then connected already",
    "dissolve_and_connect": "a second connection by the same socket",
    "dissolve_unread_and_connect": "the first one's peer died with bytes unread",
    "listener_with_a_past": "a set and a copy, then listen()",
    "dissolve_and_listen": "a client's socket that becomes a listener",
}
PLAIN = {
    "two_sets_before_connect": "one socket in two sets",
    "oneshot_before_connect": "whether it has fired is the kernel's secret",
    "nested_before_connect": "in a set that is itself in a set",
    "closed_in_set_before_connect": "its entry outlives the descriptor it was made for",
    "stdin_before_connect": "a copy is standard input",
    "fork_before_connect": "a forked child reads it too",
    "program_gets_it_before_connect": "a forked child hands it to a program later",
    "program_has_it_since_before_connect": "a program has inherited it",
    "child_connects_for_parent": "a child connects it and goes",
    "passed_before_connect": "it was sent with SCM_RIGHTS, and both use it",
}


@pytest.mark.parametrize("scenario", FUSED)
def test_what_came_before_connect_is_kept_in_mind(
    plain: Session, fused: Session, programs: Path, scenario: str
) -> None:
    assert "30 rounds" in same(plain, fused, programs / "track_early", scenario)


@pytest.mark.parametrize("scenario", PLAIN)
def test_what_others_may_use_since_before_connect_stays_plain(
    plain: Session, lazily_fused: Session, programs: Path, scenario: str
) -> None:
    program = str(programs / "track_early")
    said = plain.run([program, scenario], timeout=60).stdout
    done = lazily_fused.run([*lazily_fused.prefix, program, scenario], timeout=60)
    assert done.stdout == said
    assert "30 rounds" in said
    assert "fused" not in done.stderr


def test_a_socket_without_a_peer_says_what_it_says_plain(
    plain: Session, fused: Session, programs: Path
) -> None:
    command = [str(programs / "track_early"), "never_connected"]
    said = plain.run(command).stdout
    assert "Broken pipe" in said
    assert fused.run([*fused.prefix, *command]).stdout == said
