"""What became ready first is reported first, as the kernel's ready list has it."""

from __future__ import annotations

import sys

from conftest import PROGRAMS
from sessions import Session

ROUNDS = 1000


def test_an_idle_epoll_server_sees_connections_in_the_order_of_sending(fused: Session) -> None:
    late = int(fused.run([sys.executable, str(PROGRAMS / "order.py"), str(ROUNDS)]).stdout)
    # On plain TCP it happens, too, where the server is slow to fall asleep.
    assert late < ROUNDS / 10
