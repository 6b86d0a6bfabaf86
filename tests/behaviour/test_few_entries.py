"""RLIMIT_NOFILE of 0 or 1: poll(2) refuses more entries than that, and calls that wait go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from behaviour.two_ends import same
from sessions import Session


@pytest.mark.parametrize("entries", ["none", "one"])
def test_calls_wait_where_poll_takes_hardly_an_entry(
    plain: Session, fused: Session, programs: Path, entries: str
) -> None:
    said = same(plain, fused, programs / "few_entries", entries)
    assert said.endswith("recv: 0\nselect at the end: 1\nreadable: 1, writable: 0\n")


@pytest.mark.parametrize("call", ["send", "receive"])
def test_a_death_is_found_out_where_poll_takes_no_entry(
    plain: Session, fused: Session, programs: Path, call: str
) -> None:
    said = same(plain, fused, programs / "few_entries", f"death-in-{call}")
    assert said in ("send failed: 1\n", "recv: -1 Connection reset by peer\nrecv: 0\n")
