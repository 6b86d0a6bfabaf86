"""Rows of the broker at two moments become rates. Pure: nothing here does I/O.

What a row counts was written by the two programs themselves: any number may be there, and a
count may even be smaller than it was. So rates are never negative, and mean nothing if a
program lies about itself.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from loopfuse._messages import FlowRow, Row, WaitRow
from loopfuse._segments import WAKE_BOUNDS

Doing = Literal["sleep", "spin", "-"]
_NO_WAITS = WaitRow(False, 0, 0, 0, 0, [0] * (len(WAKE_BOUNDS) + 1), 0.0)
_NO_FLOW = FlowRow(0, 0, _NO_WAITS, _NO_WAITS)
_WRAP = 1 << 32
"""Classes of wake-ups are counted modulo this."""


class Waiting(NamedTuple):
    """How one end waited for one direction during the interval; each a second."""

    sleeps: float
    rings: float
    spins_paid: float
    spins_vain: float
    wakes: tuple[float, ...]
    """By `WAKE_BOUNDS`."""
    wake_seconds: float
    """All together, during the interval."""
    sleeping: bool

    @property
    def wake_ups(self) -> float:
        return sum(self.wakes)


class Flow(NamedTuple):
    """One direction during the interval; each a second."""

    bytes: float
    messages: float
    unread: int
    """Bytes in the ring now."""
    reader: Waiting
    writer: Waiting


class Line(NamedTuple):
    """One connection, or all between two programs."""

    row: Row
    """The connection, or the first of several."""
    connections: int
    """How many it stands for."""
    bytes: int
    """Payload since they were paired."""
    to_server: Flow | None
    """None until it has been seen twice, or if it was never paired."""
    to_client: Flow | None

    @property
    def rate(self) -> float:
        return sum(flow.bytes for flow in self.flows)

    @property
    def messages(self) -> float:
        return sum(flow.messages for flow in self.flows)

    @property
    def flows(self) -> tuple[Flow, ...]:
        return tuple(flow for flow in (self.to_server, self.to_client) if flow is not None)

    @property
    def waits(self) -> tuple[Waiting, ...]:
        return tuple(waiting for flow in self.flows for waiting in (flow.reader, flow.writer))

    @property
    def wake_ups(self) -> float:
        return sum(waiting.wake_ups for waiting in self.waits)

    @property
    def wake(self) -> float | None:
        """Mean seconds from a doorbell to the sleeper's return; None: nobody was rung for."""
        wake_ups = self.wake_ups
        return sum(w.wake_seconds for w in self.waits) / wake_ups if wake_ups else None

    @property
    def fill(self) -> float:
        """Of the fuller ring: 0 to 1."""
        most = max((flow.unread for flow in self.flows), default=0)
        return most / self.row.ring_size if self.row.ring_size else 0.0

    @property
    def client(self) -> Doing:
        return _doing(self.to_client, self.to_server)

    @property
    def server(self) -> Doing:
        return _doing(self.to_server, self.to_client)


class View(NamedTuple):
    """What one look has shown."""

    lines: list[Line]
    """Without a broker: those that were there last."""
    clock: str
    problem: str | None
    """Why nothing new could be seen."""
    fresh: bool
    """The first look: there are no rates yet."""


def _doing(incoming: Flow | None, outgoing: Flow | None) -> Doing:
    """What an end mostly did while it waited. One that has waited since before the interval
    sleeps; one that did not wait at all is busy, or does not look at the connection."""
    if incoming is None or outgoing is None:
        return "-"
    waits = (incoming.reader, outgoing.writer)
    sleeps = sum(waiting.sleeps for waiting in waits)
    if sum(waiting.spins_paid for waiting in waits) > sleeps:
        return "spin"
    if sleeps or any(waiting.sleeping for waiting in waits):
        return "sleep"
    return "spin" if any(waiting.spins_vain for waiting in waits) else "-"


class Watch:
    """Remembers what was seen last."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, str], Row] = {}
        self._moment: float | None = None
        self.interval: float | None = None
        """Seconds between the last two looks, None before the second."""

    def look(self, rows: list[Row], moment: float) -> list[Line]:
        """Lines for rows fetched at `moment`, on a clock in seconds. Numbers and beginning
        tell a connection from an earlier one, also of another broker. Those that closed are
        left out, but for what they did since the last look."""
        self.interval = None if self._moment is None else max(moment - self._moment, 1e-3)
        lines = []
        for row in rows:
            before = self._before.get(_key(row))
            if row.state == "closed" and before is None:
                continue
            lines.append(_line(row, before, self.interval))
        self._moment = moment
        self._before = {_key(row): row for row in rows if row.state != "closed"}
        return lines

    def forget(self) -> None:
        """The broker is another one: what comes next has no past."""
        self._before = {}
        self._moment = None


def _key(row: Row) -> tuple[int, str]:
    return row.id, row.since


def _line(row: Row, before: Row | None, interval: float | None) -> Line:
    total = row.bytes_to_server + row.bytes_to_client
    if interval is None or row.to_server is None or row.to_client is None:
        return Line(row, 1, total, None, None)
    sent = row.bytes_to_server - (before.bytes_to_server if before else 0)
    received = row.bytes_to_client - (before.bytes_to_client if before else 0)
    old = (before.to_server, before.to_client) if before else (None, None)
    return Line(
        row,
        1,
        total,
        _flow(row.to_server, old[0] or _NO_FLOW, sent, interval),
        _flow(row.to_client, old[1] or _NO_FLOW, received, interval),
    )


def _flow(now: FlowRow, old: FlowRow, carried: int, interval: float) -> Flow:
    return Flow(
        max(carried, 0) / interval,
        max(now.messages - old.messages, 0) / interval,
        now.unread,
        _waiting(now.reader, old.reader, interval),
        _waiting(now.writer, old.writer, interval),
    )


def _waiting(now: WaitRow, old: WaitRow, interval: float) -> Waiting:
    def rate(name: str) -> float:
        return float(max(getattr(now, name) - getattr(old, name), 0)) / interval

    wakes = tuple((a - b) % _WRAP / interval for a, b in zip(now.wakes, old.wakes, strict=False))
    return Waiting(
        rate("sleeps"),
        rate("rings"),
        rate("spins_paid"),
        rate("spins_vain"),
        wakes,
        rate("wake_seconds"),
        now.sleeping,
    )
