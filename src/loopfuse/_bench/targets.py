"""What fusing is meant to give, as data; `judging` says whether a run shows that it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loopfuse._bench.sides import sides_of

OURS = "loopfuse"


@dataclass(frozen=True)
class Target:
    """loopfuse's figure in one row, held against another one."""

    work: str
    row: str
    """Its id, or a pattern."""
    relation: Literal["at least", "more than", "at most"]
    bound: float
    against: tuple[str, ...] = ("tcp",)
    """Sides of the same row; of several the best."""
    figure: Literal["times", "share", "cpu", "call", "crowd", "memory", "ends", "broker"] = "times"
    """How the two are compared, see `judging`."""


def _at_least(work: str, row: str, **times: float) -> tuple[Target, ...]:
    """So many times what each of these sides gives."""
    return tuple(
        Target(work, row, "at least", bound, (side.replace("_", "-"),))
        for side, bound in times.items()
    )


def _faster(work: str, row: str, *sides: str) -> tuple[Target, ...]:
    return tuple(Target(work, row, "more than", 1.0, (side,)) for side in sides)


def _of_the_floor(work: str, row: str, bound: float) -> Target:
    return Target(work, row, "at most", bound, ("floor",), "share")


_PEERS = ("tcp", "tcp-poll", "unix", "unix-poll")

TARGETS = (
    *_at_least(
        "round trip of 1 B, two CPUs", "roundtrip-1-two-cpu", tcp=100, tcp_poll=15, unix_poll=8
    ),
    _of_the_floor("round trip of 1 B, two CPUs", "roundtrip-1-two-cpu", 2.5),
    *_at_least("round trip of 1 B, one CPU", "roundtrip-1-one-cpu", unix=1),
    *_at_least("stream of 64 B", "stream-64", tcp=50, unix=10),
    *_at_least("stream of 1 KiB", "stream-1024", tcp=15, unix=5),
    *_at_least("stream of 16 KiB", "stream-16384", tcp=4),
    Target("stream of 16 KiB", "stream-16384", "at least", 3, _PEERS),
    _of_the_floor("stream of 16 KiB", "stream-16384", 1.5),
    *_at_least("stream of 128 KiB", "stream-131072", tcp=4),
    Target("stream of 128 KiB", "stream-131072", "at least", 3, _PEERS),
    _of_the_floor("stream of 128 KiB", "stream-131072", 1.5),
    *_at_least("redis GET, 1 client", "redis-1", tcp=15, unix=10),
    *_at_least("redis GET, 50 clients", "redis-50", tcp=3.5, unix=2.5),
    *_at_least("redis GET, 50 clients, -P 16", "redis-50-16", tcp=2, unix=1.5),
    *_faster("memcached get", "memcached", "tcp", "unix"),
    *_faster("nginx keep-alive, wrk", "nginx", "tcp"),
    *_faster("nginx keep-alive, 1 client", "nginx-1", "tcp", "unix"),
    *_faster("pgbench -S", "pgbench", "tcp", "unix"),
    *_faster("asyncio echo", "asyncio", "tcp", "unix"),
    *_at_least("connect, request, response, close, two CPUs", "rate-64-two-cpu", tcp=0.95),
    *_at_least("connect, request, response, close, one CPU", "rate-64-one-cpu", tcp=0.95),
    *_at_least("4 busy pairs, round trips of 1 B", "busy-roundtrip-1-4", tcp=1),
    Target("4 busy pairs, round trips of 1 B", "busy-roundtrip-1-4", "at most", 1, figure="cpu"),
    *_at_least("4 busy pairs, streams of 16 KiB", "busy-stream-16384-4", tcp=1),
    Target("4 busy pairs, streams of 16 KiB", "busy-stream-16384-4", "at most", 1, figure="cpu"),
    Target("10,000 connections, 1 active", "many-64-*-1", "at most", 1.3, (OURS,), figure="crowd"),
    Target("an idle connection", "memory-64-*", "at most", 16, figure="memory"),
    Target("1 idle connection", "idle-64-1-0", "at most", 0, figure="ends"),
    Target("1 idle connection", "idle-64-1-0", "at most", 0, figure="broker"),
    Target("100 idle connections", "idle-64-100-0", "at most", 0, figure="ends"),
    Target("100 idle connections", "idle-64-100-0", "at most", 0, figure="broker"),
    *(
        Target(work, row, "at most", 1.02, (side.key,))
        for row, work in (
            ("watching-roundtrip-1", "round trip of 1 B, nobody watching"),
            ("watching-stream-64", "stream of 64 B, nobody watching"),
        )
        for side in sides_of("watching")
        if side.watcher
    ),
    *(
        Target(work, f"calls-{on}-64", "at most", 1.02, figure="call")
        for on, work in (
            ("file", "read and write of a file"),
            ("pipe", "read and write of a pipe"),
            ("tcp", "read and write of a plain TCP connection"),
            ("epoll", "epoll_wait on a plain TCP connection"),
            ("poll", "poll on a plain TCP connection"),
        )
    ),
)
