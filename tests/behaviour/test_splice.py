"""splice and sendfile: where they wait, for how much, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session

SCENARIOS = [
    "into_a_full_pipe",
    "more_than_a_pipe_holds",
    "waits_for_the_socket",
    "exit_while_a_pipe_is_full",
    "from_an_empty_pipe",
    "from_a_full_pipe",
    "beside_a_splice_that_waits",
    "into_a_full_socket",
    "from_a_pipe_of_packets",
    "from_a_pipe_whose_writer_makes_packets",
    "from_a_fifo_that_is_open_for_both",
    "into_a_pipe_of_packets",
    "much_into_a_pipe_of_packets",
    "interrupted",
    "impossible",
    "sendfile_from_a_device",
    "sendfile_to_a_pipe",
    "urgent_data",
    "nothing_into_a_full_socket",
    "sendfile_with_o_direct",
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_splice_and_sendfile_act_as_on_plain_tcp(
    plain: Session, fused: Session, programs: Path, scenario: str
) -> None:
    assert same(plain, fused, programs / "names_splice", scenario)
