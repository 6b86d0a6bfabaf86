"""A signal whose handler does not restart calls ends a send that waits, whenever it comes."""

from __future__ import annotations

import sys

from conftest import PROGRAMS
from sessions import Session, free_port

ROUNDS = 100


def test_a_waiting_send_is_interrupted_at_any_moment(fused: Session) -> None:
    port = free_port()
    command = [
        *fused.prefix,
        sys.executable,
        str(PROGRAMS / "blocked_sender.py"),
        str(ROUNDS),
        str(port),
    ]
    assert fused.run(command).stdout == "interrupted each time\n"
    assert fused.fused_rows(port)
