"""A program with an io_uring might wait for bytes where no library can see it: it stays plain."""

from __future__ import annotations

import sys

import pytest

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
