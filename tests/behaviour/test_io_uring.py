"""What goes past the C library's names, or on in the kernel, no library sees: that stays plain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from behaviour.two_ends import same
from conftest import PROGRAMS
from sessions import Session, free_port


@pytest.mark.parametrize("what", ["ring", "none"])
def test_who_sets_up_a_ring_is_not_fused(lazily_fused: Session, what: str) -> None:
    port = free_port()
    program = str(PROGRAMS / "with_a_ring.py")
    command = [*lazily_fused.prefix, sys.executable, program, what, str(port)]
    said = lazily_fused.run(command).stdout
    if said.startswith("no io_uring"):
        pytest.skip(said.strip())
    assert bool(lazily_fused.fused_rows(port)) == (what == "none")


IN_THE_BACKGROUND = {
    "poll": "poll: 1, 1, 1\n4 one\n",
    "read": "read: 1, 1, 4\none\n",
    "write": "write: 1, 1, 4\n8 one\nback\n",
    "ring": "4 one\n",
    "number": "4 one\n2 4 back\n",
}


@pytest.mark.parametrize("how", IN_THE_BACKGROUND)
def test_a_fused_socket_that_the_kernel_is_asked_to_use_goes_back_to_tcp(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    said = same(plain, fused, programs / "kernel_aio", how)
    if said.startswith("no "):
        pytest.skip(said.strip())
    assert said == IN_THE_BACKGROUND[how]
