"""The cells of the teardown table: ways to go, and what the other end is doing meanwhile."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

WAYS = {
    "close": "close, everything read",
    "close-unread": "close with unread data",
    "close-linger0": "close with `SO_LINGER` 0",
    "shut-wr": "shutdown(SHUT_WR)",
    "shut-rd": "shutdown(SHUT_RD)",
    "shut-rdwr": "shutdown(SHUT_RDWR)",
    "shut-rdwr-both": "shutdown(SHUT_RDWR) at both ends at the same time",
    "kill": "SIGKILL, everything read",
    "kill-unread": "SIGKILL with unread data",
    "exit-threads": "exit(3) while a thread sleeps in the socket",
    "destroy-there": "`ss -K` of its socket",
    "destroy-here": "`ss -K` of the other end's socket",
    "interface-down": "the interface down for 0.4 s, then up again",
    "broker-gone": "the broker killed",
}

DOINGS = {
    "idle": "idle, 10 bytes unread",
    "recv": "blocked in recv",
    "send": "blocked in send, no room",
    "write": "in the middle of a large write",
    "epoll": "in epoll_wait, level-triggered",
    "half": "half-closed, blocked in recv",
}


class Cell(NamedTuple):
    way: str
    doing: str

    def __str__(self) -> str:
        return f"{self.way}-{self.doing}"


CELLS = [Cell(way, doing) for way, doing in product(WAYS, DOINGS)]
