"""A set within a set, or polled: the kernel alone looks, and must see what there is, no more."""

from __future__ import annotations

import sys

from conftest import PROGRAMS
from sessions import Session, free_port


def test_a_set_that_is_polled_is_not_readable_for_nothing(
    plain: Session, lazily_fused: Session
) -> None:
    command = [sys.executable, str(PROGRAMS / "nested.py")]
    expected = plain.run([*command, str(free_port())]).stdout
    assert expected == "True b'abcd'\n" * 5
    port = free_port()
    assert lazily_fused.run([*lazily_fused.prefix, *command, str(port)]).stdout == expected
    assert lazily_fused.fused_rows(port)
