"""The ways that bytes go from one end to the other: the columns of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loopfuse._bench import sockmap


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
    sockmap: bool = False
    """What is sent is redirected by eBPF."""
    watcher: Literal["top", "metrics", "tap"] | None = None
    """Who looks on."""


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
SOCKMAP = Side(
    "sockmap",
    "TCP, sockmap",
    "TCP whose sends an eBPF program redirects into the peer's receive queue; blocking calls",
    "tcp",
    sockmap=True,
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
LOOPFUSE_AGAIN = Side(
    "loopfuse-again",
    "loopfuse, again",
    "the column loopfuse once more, in turns of its own: what lies between the two is noise",
    "tcp",
    fused=True,
)
LOOPFUSE_TOP = Side(
    "loopfuse-top",
    "beside top",
    "loopfuse, while `loopfuse top` prints into a pipe, every two seconds as by default",
    "tcp",
    fused=True,
    watcher="top",
)
LOOPFUSE_METRICS = Side(
    "loopfuse-metrics",
    "beside metrics",
    "loopfuse, while the broker's metrics are scraped every second",
    "tcp",
    fused=True,
    watcher="metrics",
)
LOOPFUSE_TAP = Side(
    "loopfuse-tap",
    "beside a tap",
    "loopfuse, while `loopfuse tap` captures another connection, which is idle",
    "tcp",
    fused=True,
    watcher="tap",
)
FLOOR = Side(
    "floor",
    "floor",
    "a bare ring in shared memory between two processes, with the same copying and the same "
    "waiting (spin, then sleep) as loopfuse, and no sockets",
    "ring",
)

_WATCHED = (LOOPFUSE, LOOPFUSE_AGAIN, LOOPFUSE_TOP, LOOPFUSE_METRICS, LOOPFUSE_TAP)
SIDES = (TCP, TCP_POLL, UNIX, UNIX_POLL, SOCKMAP, *_WATCHED, LOOPFUSE_SLEEP, FLOOR)

_WITHOUT_FLOOR = (TCP, TCP_POLL, UNIX, UNIX_POLL, LOOPFUSE)
_OF_KIND = {
    "self": (TCP, UNIX),
    "explain": (TCP, TCP_POLL, LOOPFUSE, LOOPFUSE_SLEEP, FLOOR),
    "roundtrip": (TCP, TCP_POLL, UNIX, UNIX_POLL, SOCKMAP, LOOPFUSE, FLOOR),
    "stream": (*_WITHOUT_FLOOR, FLOOR),
    "many": _WITHOUT_FLOOR,
    "rate": _WITHOUT_FLOOR,
    "calls": (TCP, LOOPFUSE),
    "start": (TCP, LOOPFUSE),
    "idle": (TCP, LOOPFUSE),
    "busy": (TCP, UNIX, LOOPFUSE),
    "memory": (TCP, UNIX, LOOPFUSE),
    "watching": _WATCHED,
}


def sides_of(kind: str) -> tuple[Side, ...]:
    """Those that make sense for this kind of work: a bare ring has no connections to set up
    or to choose among, memory does not depend on who polls, and more busy loops than CPUs would
    measure the scheduler. A sockmap only where there can be one, and only for round trips: a
    stream would outrun its reader without end."""
    return tuple(side for side in _OF_KIND[kind] if not side.sockmap or sockmap.obstacle() is None)
