"""What is measured with the C program: the rows of the report, but for real programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loopfuse._bench.results import Better, Cell, Row
from loopfuse._bench.sides import sides_of

Kind = Literal["self", "explain", "roundtrip", "stream", "many", "rate", "memory"]
KINDS = ("roundtrip", "stream", "many", "rate", "memory", "programs")
"""All that ``--only`` can name. Real programs are in `programs`."""

_UNITS: dict[Kind, tuple[str, str, Better]] = {
    "self": ("us", "round trip", "less"),
    "explain": ("us", "round trip", "less"),
    "roundtrip": ("us", "round trip", "less"),
    "stream": ("GB/s", "MB", "more"),
    "many": ("messages/s", "message", "more"),
    "rate": ("connections/s", "connection", "more"),
    "memory": ("kB", "connection", "less"),
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

    @property
    def id(self) -> str:
        crowd = f"-{self.connections}-{self.active}" if self.kind in ("many", "memory") else ""
        pinned = "" if self.cpus == "any" else f"-{self.cpus}-cpu"
        return f"{self.kind}-{self.size}{crowd}{pinned}"

    @property
    def title(self) -> str:
        if self.kind == "self":
            return f"round trip, {bytes_in_words(self.size)}, both ends in one process"
        if self.kind in ("roundtrip", "explain"):
            where = {"any": "", "one": ", both ends on one CPU", "two": ", one CPU for each end"}
            return f"round trip, {bytes_in_words(self.size)}{where[self.cpus]}"
        if self.kind == "stream":
            return f"stream in writes of {bytes_in_words(self.size)}"
        if self.kind == "many":
            if self.connections == 1:
                return "1 connection in epoll"
            active = "all" if self.active == self.connections else f"{self.active:,}"
            return f"{self.connections:,} connections, {active} active"
        if self.kind == "rate":
            return f"connect, send {bytes_in_words(self.size)}, receive, close"
        return f"memory of an idle connection, of {self.connections:,}"

    def row(self) -> Row:
        unit, work, better = _UNITS[self.kind]
        pinned = self.cpus != "any"
        cells = [Cell(side.key) for side in sides_of(self.kind)]
        return Row(self.id, self.kind, self.title, unit, work, better, self.size, pinned, cells)


def bytes_in_words(size: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:g} {unit}"
    return f"{size} B"


def full(most: int) -> list[Workload]:
    """Everything, in the order of the report; with at most so many connections."""
    loads = [Workload("roundtrip", size) for size in (1, 64, 1024, 4096, 16384, 65536)]
    loads += [Workload("roundtrip", 1, cpus=cpus) for cpus in ("one", "two")]
    loads += [Workload("stream", size) for size in (16, 64, 1024, 16384, 131072, 1 << 20)]
    for connections in sorted({min(most, wanted) for wanted in (1, 10, 100, 1000, 10000)}):
        for active in sorted({1, connections // 10, connections} - {0}):
            loads.append(Workload("many", 64, connections, active))
    idle = min(most, 2000)
    return [*loads, Workload("rate", 64), Workload("memory", 64, idle, idle)]


def quick() -> list[Workload]:
    """One of each kind, about."""
    loads = [Workload("roundtrip", size) for size in (1, 16384)]
    loads += [Workload("roundtrip", 1, cpus=cpus) for cpus in ("one", "two")]
    loads += [Workload("stream", size) for size in (64, 16384)]
    loads += [Workload("many", 64, 100, active) for active in (1, 100)]
    return [*loads, Workload("rate", 64), Workload("memory", 64, 200, 200)]


def explaining() -> list[Workload]:
    """What `explanation` needs."""
    return [
        Workload("self", 1, cpus="one"),
        Workload("explain", 1, cpus="one"),
        Workload("explain", 1, cpus="two"),
    ]
