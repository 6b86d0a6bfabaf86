"""The connections the broker knows, and for a while those that are over.

A connection enters with its first confirmed claim or decline and keeps its id, which is
also its pair id, until it goes. Those that were never paired vanish without a trace;
pairs leave a closed row behind.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from loopfuse._broker_state.client import Client
from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.rows import closed_row, row_of
from loopfuse._broker_state.tally import Tally
from loopfuse._matching import Endpoint, Name
from loopfuse._messages import Row
from loopfuse._reasons import Reason
from loopfuse._segments import write_broker_word

KEEP_CLOSED_SECONDS = 60.0
KEEP_CLOSED = 1000


class End(NamedTuple):
    """What one end said of itself, as far as the kernel confirmed it."""

    client: Client
    endpoint: Endpoint
    cookie: int
    claim_id: int
    side: int
    limit: int

    @property
    def uid(self) -> int:
        return self.client.credentials.uid


class Connection:
    """One TCP connection with at least one end under loopfuse."""

    def __init__(self, connection_id: int, name: Name) -> None:
        self.id = connection_id
        self.name = name
        self.opened = time.monotonic()
        self.since = time.time()
        """Of the pairing, or else of the first word about it."""
        self.ends: dict[Endpoint, End] = {}
        self.waiting: End | None = None
        """The end whose claim has no counterpart yet."""
        self.client_end: Endpoint | None = None
        """Known as soon as an end is."""
        self.reason = Reason.NO_COUNTERPART
        """Why it is not paired, or what an end declined with after it was."""
        self.detail = ""
        """The rule behind it, if the reason is FIREWALL or POLICY."""
        self.segment = -1
        """Descriptor of the pair's memory, -1: not paired."""
        self.wished = Reason.NONE
        """What the broker has asked the ends to go back to TCP for."""
        self.taps = 0
        """A bit for each tap that sees it."""
        self.end_told = False
        """Does the log have it that it went back to TCP?"""

    @property
    def paired(self) -> bool:
        return self.segment >= 0

    def wish(self, reason: Reason) -> None:
        """Asks both ends of a pair to go back to TCP."""
        self.wished = reason
        write_broker_word(self.segment, self.wished, self.taps)

    def prepare_taps(self, segment: int, taps: int) -> None:
        """The same of one that is about to become a pair, by its memory."""
        self.taps = taps
        write_broker_word(segment, self.wished, self.taps)

    def set_taps(self, taps: int) -> None:
        """Says which taps are to see the payload of this pair from the next send on."""
        self.taps = taps
        write_broker_word(self.segment, self.wished, self.taps)


class Ledger:
    """All of them, by id and by name."""

    def __init__(self, decisions: Decisions, tally: Tally) -> None:
        self._decisions = decisions
        self.tally = tally
        self._by_id: dict[int, Connection] = {}
        self._by_name: dict[Name, Connection] = {}
        self._closed: deque[tuple[float, Row]] = deque(maxlen=KEEP_CLOSED)
        self._next_id = 1
        self.pairs = 0
        self.on_pair_over: Callable[[Connection], None] = lambda connection: None
        """Called while its segment can still be read."""

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def segments(self) -> Iterator[int]:
        """Descriptors of the pairs' memory."""
        return (one.segment for one in self if one.paired)

    def get(self, connection_id: int) -> Connection | None:
        return self._by_id.get(connection_id)

    def find(self, name: Name) -> Connection | None:
        return self._by_name.get(name)

    def open(self, name: Name) -> Connection:
        """A new connection; the name must be free."""
        connection = Connection(self._next_id, name)
        self._next_id += 1
        self._by_id[connection.id] = connection
        self._by_name[name] = connection
        return connection

    def set_end(self, connection: Connection, end: End) -> None:
        """Puts an end in its place; whoever claimed it before loses it."""
        old = connection.ends.get(end.endpoint)
        if old is not None:
            self._unlink(connection, old)
        connection.ends[end.endpoint] = end
        end.client.connections.add(connection.id)

    def remove_end(self, connection: Connection, end: End) -> None:
        """Takes an unpaired end out, and the connection with its last end."""
        if connection.waiting is end:
            connection.waiting = None
        if connection.ends.get(end.endpoint) is end:
            del connection.ends[end.endpoint]
        self._unlink(connection, end)
        if not connection.ends:
            self.close(connection)

    def pair(self, connection: Connection, segment: int, client_end: Endpoint) -> None:
        """The connection has become a pair; `segment` is the ledger's to close now."""
        connection.segment = segment
        connection.waiting = None
        connection.client_end = client_end
        connection.reason = Reason.NONE
        connection.since = time.time()
        self.pairs += 1

    def unpair(self, connection: Connection, reason: Reason) -> None:
        """The pairing has failed half-way."""
        self.on_pair_over(connection)
        self._drop_segment(connection)
        connection.reason = reason
        self.tally.declined[reason.code] += 1

    def close(self, connection: Connection) -> None:
        """The connection is over."""
        self.tally.closed(connection)
        if connection.paired:
            self.on_pair_over(connection)
            row = closed_row(connection)
            self._closed.append((time.monotonic(), row))
            self._decisions.closed(connection, row)
            self._drop_segment(connection)
        for end in connection.ends.values():
            self._unlink(connection, end)
        self._by_id.pop(connection.id, None)
        if self._by_name.get(connection.name) is connection:
            del self._by_name[connection.name]

    def _drop_segment(self, connection: Connection) -> None:
        os.close(connection.segment)
        connection.segment = -1
        self.pairs -= 1

    @staticmethod
    def _unlink(connection: Connection, end: End) -> None:
        end.client.connections.discard(connection.id)

    def closed_rows(self) -> list[Row]:
        """Those of pairs that closed lately."""
        oldest = time.monotonic() - KEEP_CLOSED_SECONDS
        while self._closed and self._closed[0][0] < oldest:
            self._closed.popleft()
        return [row for _, row in self._closed]

    def rows(self, *, counters: bool = False) -> list[Row]:
        """Every row of `ps`, in the order of the ids."""
        rows = self.closed_rows() + [row_of(connection, counters=counters) for connection in self]
        return sorted(rows, key=lambda row: row.id)

    def release(self) -> None:
        """Closes the broker's own descriptors; the pairs live on without it."""
        for connection in self:
            if connection.paired:
                self._drop_segment(connection)
