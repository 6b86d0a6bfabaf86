"""Children that the C library's fork did not make (tests/programs/strange_children.c)."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_ends import same

from sessions import Session


@pytest.mark.parametrize(
    "how", ["vfork", "clone", "clones-other-name", "system-call", "fork-alone"]
)
def test_what_a_child_closes_and_opens_is_none_of_its_parents_business(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    said = same(plain, fused, programs / "strange_children", how)
    assert said == "the child ended with 0\nand here it goes on\n"


@pytest.mark.parametrize("how", ["failed-fork", "failed-forks-other-name"])
def test_a_child_that_there_never_was_has_no_sockets(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    said = same(plain, fused, programs / "strange_children", how)
    assert said == "no child: Resource temporarily unavailable\nand here it goes on\n"


MADE_BY_HANDLERS = {
    "in-a-receive": "1 back\n",
    "in-a-poll": "the child ended with 0\nand here it goes on\n",
}


@pytest.mark.parametrize("call", MADE_BY_HANDLERS)
def test_a_call_that_a_handler_has_interrupted_to_fork_goes_on_in_the_child(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    """What it counts for is counted there, too: the child is not to lose sight of its socket."""
    said = same(plain, fused, programs / "strange_children", call)
    assert said == MADE_BY_HANDLERS[call]


def test_a_child_inherits_nothing_of_a_connection_that_is_just_being_fused(
    plain: Session, fused: Session, programs: Path
) -> None:
    """A doorbell, say, which it could not know of: the peer would not hear of a death."""
    said = same(plain, fused, programs / "strange_children", "beside-a-thread")
    assert said == "0 children had other numbers\n"
