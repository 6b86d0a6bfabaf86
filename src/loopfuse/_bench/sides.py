"""The ways that bytes go from one end to the other: the columns of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Side:
    """One column."""

    key: str
    title: str
    words: str
    over: Literal["tcp", "unix", "ring"]
    polling: bool = False
    fused: bool = False
    spin_us: int | None = None
    """How long loopfuse spins before it sleeps, where that is not its own choice."""


TCP = Side("tcp", "TCP", "plain TCP on 127.0.0.1, blocking calls", "tcp")
TCP_POLL = Side(
    "tcp-poll",
    "TCP, polling",
    "plain TCP, both ends in a busy loop of calls that do not block",
    "tcp",
    polling=True,
)
UNIX = Side("unix", "AF_UNIX", "a unix stream socket, blocking calls", "unix")
UNIX_POLL = Side(
    "unix-poll",
    "AF_UNIX, polling",
    "a unix stream socket, both ends in a busy loop",
    "unix",
    polling=True,
)
LOOPFUSE = Side(
    "loopfuse",
    "loopfuse",
    "the programs of the column TCP under loopfuse, as `loopfuse run` starts them",
    "tcp",
    fused=True,
)
LOOPFUSE_SLEEP = Side(
    "loopfuse-sleep",
    "loopfuse, sleeping",
    "loopfuse, told never to spin (LOOPFUSE_SPIN_US=0): what is left when the peer takes long",
    "tcp",
    fused=True,
    spin_us=0,
)
FLOOR = Side(
    "floor",
    "floor",
    "a bare ring in shared memory between two processes, with the same copying and the same "
    "waiting (spin, then sleep) as loopfuse, and no sockets",
    "ring",
)

SIDES = (TCP, TCP_POLL, UNIX, UNIX_POLL, LOOPFUSE, LOOPFUSE_SLEEP, FLOOR)

_WITHOUT_FLOOR = (TCP, TCP_POLL, UNIX, UNIX_POLL, LOOPFUSE)
_OF_KIND = {
    "self": (TCP, UNIX),
    "explain": (TCP, TCP_POLL, LOOPFUSE, LOOPFUSE_SLEEP, FLOOR),
    "roundtrip": (*_WITHOUT_FLOOR, FLOOR),
    "stream": (*_WITHOUT_FLOOR, FLOOR),
    "many": _WITHOUT_FLOOR,
    "rate": _WITHOUT_FLOOR,
    "memory": (TCP, UNIX, LOOPFUSE),
}


def sides_of(kind: str) -> tuple[Side, ...]:
    """Those that make sense for this kind of work: a bare ring has no connections to set up
    or to choose among, and memory does not depend on who polls."""
    return _OF_KIND[kind]
