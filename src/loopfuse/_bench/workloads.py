"""What is measured with the C program: the rows of the report, but for real programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from loopfuse._bench.results import Better, Cell, Row
from loopfuse._bench.sides import sides_of

Kind = Literal[
    "self",
    "explain",
    "roundtrip",
    "stream",
    "many",
    "rate",
    "busy",
    "idle",
    "memory",
    "watching",
    "calls",
    "start",
]
Subject = Literal["file", "pipe", "tcp", "epoll", "poll"]
KINDS = (*(kind for kind in get_args(Kind) if kind not in ("self", "explain")), "programs")
"""All that ``--only`` can name. Real programs are in `programs`."""

_UNITS: dict[Kind, tuple[str, str, Better]] = {
    "self": ("us", "round trip", "less"),
    "explain": ("us", "round trip", "less"),
    "roundtrip": ("us", "round trip", "less"),
    "stream": ("GB/s", "MB", "more"),
    "many": ("messages/s", "message", "more"),
    "rate": ("connections/s", "connection", "more"),
    "busy": ("round trips/s", "round trip", "more"),
    "idle": ("us of CPU a second", "second", "less"),
    "calls": ("ns", "call", "less"),
    "start": ("us", "start", "less"),
    "memory": ("kB", "connection", "less"),
    "watching": ("us", "round trip", "less"),
}


@dataclass(frozen=True)
class Workload:
    """One row."""

    kind: Kind
    size: int
    """Bytes of a message, or of a write of a stream."""
    connections: int = 1
    active: int = 1
    """How many of them talk; the others idle."""
    cpus: Literal["any", "one", "two"] = "any"
    """Where the two ends run: wherever the scheduler puts them, or pinned."""
    pairs: int = 1
    """Of a server and a client with a connection each, all busy at once."""
    work: Literal["roundtrip", "stream"] = "roundtrip"
    """What busy pairs do, and those that are watched."""
    on: Subject = "file"
    """What single calls are made on."""

    @property
    def id(self) -> str:
        crowded = self.kind in ("many", "memory", "idle")
        crowd = f"-{self.connections}-{self.active}" if crowded else ""
        if self.kind == "watching":
            return f"watching-{self.work}-{self.size}"
        if self.kind == "busy":
            return f"busy-{self.work}-{self.size}-{self.pairs}"
        if self.kind == "calls":
            return f"calls-{self.on}-{self.size}"
        if self.kind == "start":
            return "start"
        pinned = "" if self.cpus == "any" else f"-{self.cpus}-cpu"
        return f"{self.kind}-{self.size}{crowd}{pinned}"

    @property
    def title(self) -> str:
        return _TITLES[self.kind](self)

    def row(self) -> Row:
        unit, work, better = _UNITS[self.kind]
        if self.work == "stream":
            unit, work, better = _UNITS["stream"]
        pinned = self.cpus != "any" or self.kind == "watching"
        cells = [Cell(side.key) for side in sides_of(self.kind)]
        return Row(self.id, self.kind, self.title, unit, work, better, self.size, pinned, cells)


_WHERE = {"any": "", "one": ", both ends on one CPU", "two": ", one CPU for each end"}


def _title_of_trip(load: Workload) -> str:
    return f"round trip, {bytes_in_words(load.size)}{_WHERE[load.cpus]}"


def _title_of_rate(load: Workload) -> str:
    return f"connect, send {bytes_in_words(load.size)}, receive, close{_WHERE[load.cpus]}"


def _title_of_many(load: Workload) -> str:
    if load.connections == 1:
        return "1 connection in epoll"
    active = "all" if load.active == load.connections else f"{load.active:,}"
    return f"{load.connections:,} connections, {active} active"


def _title_of_watching(load: Workload) -> str:
    what = {"roundtrip": "round trips of", "stream": "stream in writes of"}[load.work]
    return f"{what} {bytes_in_words(load.size)}, watched or not"


def _title_of_busy(load: Workload) -> str:
    what = {"roundtrip": "round trips of", "stream": "streams in writes of"}[load.work]
    return f"{load.pairs} busy pairs, {what} {bytes_in_words(load.size)}"


def _title_of_idle(load: Workload) -> str:
    if load.connections == 1:
        return "1 idle connection, both ends asleep in recv"
    return f"{load.connections} idle connections, both ends asleep in epoll_wait"


def _title_of_calls(load: Workload) -> str:
    size = bytes_in_words(load.size)
    return {
        "file": f"read and write {size} of a file",
        "pipe": f"read and write {size} of a pipe",
        "tcp": f"read and write {size} of a TCP connection to a program without loopfuse",
        "epoll": "epoll_wait on such a connection",
        "poll": "poll on such a connection",
    }[load.on]


_TITLES: dict[Kind, Callable[[Workload], str]] = {
    "self": lambda load: f"round trip, {bytes_in_words(load.size)}, both ends in one process",
    "explain": _title_of_trip,
    "roundtrip": _title_of_trip,
    "stream": lambda load: f"stream in writes of {bytes_in_words(load.size)}",
    "many": _title_of_many,
    "rate": _title_of_rate,
    "busy": _title_of_busy,
    "idle": _title_of_idle,
    "memory": lambda load: f"memory of an idle connection, of {load.connections:,}",
    "calls": _title_of_calls,
    "start": lambda _load: "start and end of `true`",
    "watching": _title_of_watching,
}


def bytes_in_words(size: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:g} {unit}"
    return f"{size} B"


MOST = 10000
"""Connections of the largest crowd."""


def full(most: int) -> list[Workload]:
    """Everything, in the order of the report; with at most so many connections."""
    loads = [Workload("roundtrip", size) for size in (1, 64, 1024, 4096, 16384, 65536)]
    loads += [Workload("roundtrip", 1, cpus=cpus) for cpus in ("one", "two")]
    loads += [Workload("stream", size) for size in (16, 64, 1024, 16384, 131072, 1 << 20)]
    for connections in sorted({min(most, wanted) for wanted in (1, 10, 100, 1000, MOST)}):
        for active in sorted({1, connections // 10, connections} - {0}):
            loads.append(Workload("many", 64, connections, active))
    idle = min(most, 2000)
    # Wherever the scheduler puts them, TCP's ends are at times on one CPU and at times on two,
    # which are two speeds; so they are measured apart as well.
    loads += [Workload("rate", 64, cpus=cpus) for cpus in ("any", "one", "two")]
    loads += [*_busy(), *_idle(1, 100)]
    loads += [Workload("memory", 64, idle, idle), *_watched()]
    return [*loads, *_unused("file", "pipe", "tcp", "epoll", "poll")]


def quick() -> list[Workload]:
    """One of each kind, about."""
    loads = [Workload("roundtrip", size) for size in (1, 16384)]
    loads += [Workload("roundtrip", 1, cpus=cpus) for cpus in ("one", "two")]
    loads += [Workload("stream", size) for size in (64, 16384)]
    loads += [Workload("many", 64, 100, active) for active in (1, 100)]
    loads += [Workload("rate", 64, cpus=cpus) for cpus in ("one", "two")]
    loads += [*_busy(), *_idle(100)]
    loads += [Workload("memory", 64, 200, 200), *_watched()[:1]]
    return [*loads, *_unused("file", "tcp", "epoll")]


def _busy() -> list[Workload]:
    """More runnable threads than a small machine has CPUs."""
    return [Workload("busy", 1, pairs=4), Workload("busy", 16384, pairs=4, work="stream")]


def _idle(*connections: int) -> list[Workload]:
    return [Workload("idle", 64, n, 0) for n in connections]


def _watched() -> list[Workload]:
    """What passes through the ring's quickest paths."""
    return [Workload("watching", 1), Workload("watching", 64, work="stream")]


def _unused(*subjects: Subject) -> list[Workload]:
    """Where a program under loopfuse has nothing to be fused."""
    return [*(Workload("calls", 64, on=subject) for subject in subjects), Workload("start", 0)]


def explaining() -> list[Workload]:
    """What `explanation` needs."""
    return [
        Workload("self", 1, cpus="one"),
        Workload("explain", 1, cpus="one"),
        Workload("explain", 1, cpus="two"),
    ]
