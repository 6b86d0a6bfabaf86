"""What has happened since the broker started, for its metrics: counts that never go down.

What a connection counts in its segment goes with it; here it stays. With metrics on, each
living segment is read about once a second, a few at a time, and once more when its
connection closes. The ends wrote those numbers: one that went down adds nothing, and one
that went up by more than any program could do is an error, not a count.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from loopfuse._broker_state.rows import END_OF_LIFE, judge
from loopfuse._errors import SegmentError
from loopfuse._messages import State
from loopfuse._reasons import Reason
from loopfuse._segments import WAKE_BOUNDS, Direction, Segment, Waits, read_segment

if TYPE_CHECKING:
    from loopfuse._broker_state.ledger import Connection

INTERVAL = 1.0
_AT_ONCE = 32
_SHARE = 20
"""Reading takes at most this part of the broker's time."""
_IMPOSSIBLE = 1 << 50
_WRAP = 1 << 32
"""Classes of wake-ups are counted modulo this."""
PAIRING_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WaitTotals:
    """How all readers, or all writers, have waited."""

    def __init__(self) -> None:
        self.rings = 0
        self.sleeps = 0
        self.spins_paid = 0
        self.spins_vain = 0
        self.wake_ns = 0
        self.wakes = [0] * (len(WAKE_BOUNDS) + 1)


class FlowTotals:
    """What all connections carried in one direction."""

    def __init__(self) -> None:
        self.bytes = 0
        self.messages = 0


class Tally:
    """See the module. `reads`: is there anybody who wants to know what segments count?"""

    def __init__(self, *, reads: bool = False) -> None:
        self.reads = reads
        self.fused = 0
        """Pairs that were handed out."""
        self.declined: Counter[str] = Counter()
        """Connections that will not be fused, by reason."""
        self.defused: Counter[str] = Counter()
        """Fused ones that went back to TCP before they ended, by reason."""
        self.errors: Counter[str] = Counter()
        self.pairing = [0] * (len(PAIRING_BOUNDS) + 1)
        """Pairs by how long it took from the first claim, by `PAIRING_BOUNDS`."""
        self.pairing_seconds = 0.0
        self.to_server = FlowTotals()
        self.to_client = FlowTotals()
        self.readers = WaitTotals()
        self.writers = WaitTotals()
        self._states: dict[int, State] = {}
        """Of the living pairs, when last read."""
        self._seen: dict[int, Segment] = {}
        self._ended: set[int] = set()
        """Ids of those that are counted in `defused` or `declined` already."""
        self._round: Iterator[Connection] | None = None
        self._next = 0.0

    @property
    def states(self) -> Counter[str]:
        """How many of the living pairs were in which state when last read."""
        return Counter(self._states.values())

    # -- told by others -------------------------------------------------------------

    def paired(self, seconds: float) -> None:
        """A pair was handed out, so long after its first claim."""
        self.fused += 1
        self.pairing[_class_of(seconds, PAIRING_BOUNDS)] += 1
        self.pairing_seconds += seconds

    def closed(self, connection: Connection) -> None:
        """The connection is over; its segment is still there."""
        if not connection.paired:
            if connection.reason == Reason.NO_COUNTERPART:
                self.declined[connection.reason.code] += 1
            return
        if self.reads:
            self._read(connection)
        self._seen.pop(connection.id, None)
        self._states.pop(connection.id, None)
        self._ended.discard(connection.id)

    # -- reading segments -----------------------------------------------------------

    def due(self) -> float | None:
        """When `run` wants to be called; None: never."""
        return self._next if self.reads else None

    def run(self, connections: Iterable[Connection]) -> None:
        """Reads some segments, if it is time to; `connections`: all of them."""
        now = time.monotonic()
        if not self.reads or now < self._next:
            return
        if self._round is None:
            self._round = iter(list(connections))
        for _ in range(_AT_ONCE):
            connection = next(self._round, None)
            if connection is None:
                self._round = None
                self._next = now + INTERVAL
                return
            if connection.paired:
                self._states[connection.id] = self._read(connection)
        end = time.monotonic()
        self._next = end + (end - now) * _SHARE

    def _read(self, connection: Connection) -> State:
        """Adds what is new in its segment."""
        try:
            segment = read_segment(connection.segment)
        except SegmentError:
            self.errors["segment"] += 1
            return "defused"
        state, reason = judge(segment, connection.reason)
        if connection.id not in self._ended and reason not in END_OF_LIFE:
            self._ended.add(connection.id)
            counted = self.defused if state == "defused" else self.declined
            counted[_code(reason)] += 1
        before = self._seen.get(connection.id)
        if segment != before:
            self._seen[connection.id] = segment
            self._add(segment.to_server, before.to_server if before else None, self.to_server)
            self._add(segment.to_client, before.to_client if before else None, self.to_client)
        return state

    def _add(self, now: Direction, before: Direction | None, totals: FlowTotals) -> None:
        totals.bytes += self._step(now.head, before.head if before else 0)
        totals.messages += self._step(now.messages, before.messages if before else 0)
        self._add_waits(now.reader, before.reader if before else Waits(), self.readers)
        self._add_waits(now.writer, before.writer if before else Waits(), self.writers)

    def _add_waits(self, now: Waits, before: Waits, totals: WaitTotals) -> None:
        if now == before:
            return
        totals.rings += self._step(now.rings, before.rings)
        totals.sleeps += self._step(now.sleeps, before.sleeps)
        totals.spins_paid += self._step(now.spins_paid, before.spins_paid)
        totals.spins_vain += self._step(now.spins_vain, before.spins_vain)
        totals.wake_ns += self._step(now.wake_ns, before.wake_ns)
        for index, (new, old) in enumerate(zip(now.wakes, before.wakes, strict=True)):
            totals.wakes[index] += (new - old) % _WRAP

    def _step(self, now: int, before: int) -> int:
        if now - before > _IMPOSSIBLE:
            self.errors["impossible-count"] += 1
            return 0
        return max(now - before, 0)


def _class_of(value: float, bounds: tuple[float, ...]) -> int:
    return next((i for i, bound in enumerate(bounds) if value <= bound), len(bounds))


def _code(number: int) -> str:
    """A label's value: there must not be as many as a program can write numbers."""
    try:
        return Reason(number).code
    except ValueError:
        return "unknown"
