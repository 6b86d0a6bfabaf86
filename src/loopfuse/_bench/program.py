"""What a real program is as a workload: how it is started and asked, and what it answers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loopfuse._bench import postgresql
from loopfuse._bench.results import Better, Cell, Latency, Row
from loopfuse._bench.sides import LOOPFUSE, TCP, Side
from loopfuse._errors import BenchError


@dataclass(frozen=True)
class Spot:
    """Where one server is."""

    folder: Path
    """Its own, and empty at first."""
    port: int
    measure: str
    """The measuring program, which asks those that just echo."""
    unix: bool = False
    """The client takes the server's unix socket."""

    @property
    def socket(self) -> str:
        """The path of that socket, for servers that can be told where it is to be."""
        return str(self.folder / "socket")

    @property
    def where(self) -> str:
        """That path or the port, for programs that take either."""
        return self.socket if self.unix else str(self.port)


@dataclass(frozen=True)
class Answer:
    """What a client found."""

    value: float
    units: float
    latency: Latency | None = None


@dataclass(frozen=True)
class Program:
    """One row."""

    id: str
    title: str
    unit: str
    work: str
    needs: tuple[str, ...]
    """Programs that must be found."""
    server: Callable[[Spot], list[str]]
    client: Callable[[Spot, float, int], list[str]]
    """The command that asks for so many seconds, or for so many units if it counts these."""
    answer: Callable[[str, int], Answer]
    """From what the client printed, and the units it was told to ask for."""
    better: Better = "more"
    sides: tuple[Side, ...] = (TCP, LOOPFUSE)
    prepare: Callable[[Spot], list[list[str]]] | None = None
    """Commands to run before the server starts; their environment is a plain one."""
    fill: Callable[[Spot], list[str]] | None = None
    """A command for when it is up."""
    stop_with: int = signal.SIGTERM
    least_bytes: int = 10
    """Payload of one unit of work, both ways together, is never less."""

    def missing(self) -> list[str]:
        return [name for name in self.needs if find(name) is None]

    def row(self) -> Row:
        cells = [Cell(side.key) for side in self.sides]
        return Row(self.id, "programs", self.title, self.unit, self.work, self.better, cells=cells)


def find(name: str) -> str | None:
    """Servers are often where only root looks."""
    if name == sys.executable:
        return name
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=path) or postgresql.find(name)


def path_of(name: str) -> str:
    found = find(name)
    assert found is not None, f"{name} is in `needs`"
    return found


def number_in(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    if not found:
        raise BenchError(f"no figure like /{pattern}/ in what was printed: {said[-200:]!r}")
    return float(found[1])
