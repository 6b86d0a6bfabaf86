"""Who is watching which connections: the broker's part of `loopfuse tap`.

A tap is a client that asked for it and has not hung up. It has a bit in the segments of the
connections it sees, and a capture ring for each user whose processes write to it: a ring is
writable, so readable, by all who record there, and what one user's programs send is none of
another's business. The broker makes the rings, hands them to both sides and sets the bits; it
never looks into a ring.
"""

from __future__ import annotations

import contextlib
import os
import time

import msgspec

from loopfuse._broker_state.client import Client
from loopfuse._broker_state.ledger import Connection, End, Ledger
from loopfuse._broker_state.log import Log
from loopfuse._broker_state.permission import may_watch
from loopfuse._broker_state.rows import end_row, is_fusing
from loopfuse._capture_ring import (
    CELLS_MAX,
    CELLS_MIN,
    close_capture_ring,
    drop_capture_ring,
    make_capture_ring,
)
from loopfuse._errors import SegmentError
from loopfuse._matching import Endpoint
from loopfuse._messages import (
    ErrorReply,
    TapCapture,
    TapClosed,
    TapConnection,
    TapEnd,
    TapEvent,
    TapOpened,
    TapRequest,
    TapStarted,
)
from loopfuse._segments import TAPS, Mark, read_segment
from loopfuse._wire import TapRing, pack_tap

A_PACKET = 64
"""Connections in one."""
CELLS_OF_OTHERS = 1 << 16
"""At most, where one user's programs fill a ring that another user has asked for: whoever touches
memory first is made to account for it."""
TAPS_PER_USER = 4
"""So that no user keeps the others from it."""


class _Tap:
    """One of them."""

    def __init__(self, client: Client, slot: int, request: TapRequest) -> None:
        self.client = client
        self.slot = slot
        self.request = request
        self.captures: dict[int, int] = {}
        """Descriptor of the capture ring of each user."""
        self.over: list[TapEnd] = []
        """Connections that are over, which it has not been told yet."""
        self.introduced: set[Client] = set()
        """Those that have got theirs."""

    @property
    def bit(self) -> int:
        return 1 << self.slot

    def cells(self, uid: int) -> int:
        """Of the capture ring of this user."""
        own = self.client.credentials.uid in (0, os.geteuid(), uid)
        return self.request.cells if own else min(self.request.cells, CELLS_OF_OTHERS)

    def wants(self, connection: Connection, ends: dict[Endpoint, End]) -> bool:
        """By what was asked for, whoever may see it."""
        asked = self.request
        name = connection.name
        if asked.ids and connection.id not in asked.ids:
            return False
        if asked.ports and not {name.low.port, name.high.port} & set(asked.ports):
            return False
        pids = {end.client.credentials.pid for end in ends.values()}
        return not asked.pids or bool(pids & set(asked.pids))


class Taps:
    """All of them."""

    def __init__(self, ledger: Ledger, log: Log) -> None:
        self._ledger = ledger
        self._log = log
        self._taps: dict[int, _Tap] = {}
        self._encoder = msgspec.json.Encoder()
        ledger.on_pair_over = self._on_pair_over

    # -- a tap comes and goes -------------------------------------------------------

    def begin(self, client: Client, request: TapRequest) -> None:
        """A client wants to see payload."""
        objection = self._objection(client, request)
        if objection is not None:
            client.send(self._encoder.encode(ErrorReply(objection)))
            return
        slot = min(set(range(TAPS)) - self._taps.keys())
        tap = self._taps[slot] = _Tap(client, slot, request)
        self._log.info(f"{client.describe()} taps connections")
        foreign = 0
        shown = []
        for connection in self._ledger:
            if not tap.wants(connection, connection.ends) or not is_fusing(connection):
                continue
            if may_watch(connection.ends.values(), client.credentials.uid):
                shown.append(connection)
            else:
                foreign += 1
        self._show(tap, shown)
        self._tell(tap, TapStarted(len(shown), foreign))

    def _objection(self, client: Client, request: TapRequest) -> str | None:
        uid = client.credentials.uid
        if any(tap.client is client for tap in self._taps.values()):
            return "this connection to the broker taps already"
        if not CELLS_MIN <= request.cells <= CELLS_MAX or request.cells & (request.cells - 1):
            return f"a capture ring of {request.cells} cells can't be made"
        if request.snap < 0:
            return f"packets can't be cut off at {request.snap} bytes"
        of_user = sum(tap.client.credentials.uid == uid for tap in self._taps.values())
        if len(self._taps) >= TAPS or (uid != 0 and of_user >= TAPS_PER_USER):
            return f"there are {len(self._taps)} taps, which is as many as there can be"
        return None

    def on_client_gone(self, client: Client) -> None:
        """If it was a tap, nothing of it stays switched on."""
        for slot, tap in list(self._taps.items()):
            tap.introduced.discard(client)
            if tap.client is client:
                del self._taps[slot]
                self._end(tap)
                for capture in tap.captures.values():
                    with contextlib.suppress(OSError, ValueError):
                        drop_capture_ring(capture)
                    os.close(capture)

    def _end(self, tap: _Tap) -> None:
        self._log.info(f"{tap.client.describe()} taps no more")
        for connection in self._ledger:
            if connection.paired and connection.taps & tap.bit:
                connection.set_taps(connection.taps & ~tap.bit)

    def release(self) -> None:
        """The broker leaves, and with it all taps, which still read what they have."""
        while self._taps:
            tap = self._taps.popitem()[1]
            self._end(tap)
            for capture in tap.captures.values():
                close_capture_ring(capture)
                os.close(capture)

    # -- connections ----------------------------------------------------------------

    def _show(self, tap: _Tap, connections: list[Connection]) -> None:
        """Pairs that live are tapped from now on."""
        described = []
        for connection in connections:
            with contextlib.suppress(SegmentError):
                segment = read_segment(connection.segment)
                # Positions first, then the bit: no record lies before what the tap is told.
                heads = (segment.to_server.head, segment.to_client.head)
                paired = int(connection.since * 1e9)
                described.append(_described(connection, connection.ends, paired, heads))
        for start in range(0, len(described), A_PACKET):
            self._tell(tap, TapOpened(described[start : start + A_PACKET]))
        # The rings before the bits, too: who sees a bit finds its ring in the mail.
        for connection in connections:
            for end in connection.ends.values():
                self._introduce(tap, end.client)
        for connection in connections:
            connection.set_taps(connection.taps | tap.bit)

    def before_hand_out(
        self, connection: Connection, segment: int, client_end: Endpoint, *ends: End
    ) -> None:
        """A pair is about to be made: those who may see it will from its first byte on, since
        its ends get the capture rings before the pair."""
        by_endpoint = {end.endpoint: end for end in ends}
        bits = 0
        for tap in self._taps.values():
            uid = tap.client.credentials.uid
            if not may_watch(ends, uid) or not tap.wants(connection, by_endpoint):
                continue
            for end in ends:
                self._introduce(tap, end.client)
            one = _described(connection, by_endpoint, time.time_ns(), None, client_end)
            self._tell(tap, TapOpened([one]))
            bits |= tap.bit
        connection.prepare_taps(segment, bits)

    def on_ask(self, client: Client, pair_id: int) -> None:
        """A library sees a bit and knows no ring for it: it was forked before."""
        connection = self._ledger.get(pair_id)
        if connection is None or client.credentials.uid not in {
            end.uid for end in connection.ends.values()
        }:
            return
        for tap in self._taps.values():
            if connection.taps & tap.bit:
                tap.introduced.discard(client)
                self._introduce(tap, client)

    def _on_pair_over(self, connection: Connection) -> None:
        if not connection.taps:
            return
        end = TapEnd(connection.id, time.time_ns(), -1, -1, True, True)
        with contextlib.suppress(SegmentError):
            segment = read_segment(connection.segment)
            end.to_server, end.to_client = segment.to_server.head, segment.to_client.head
            end.to_server_ended = segment.to_server.mark != Mark.FUSED
            end.to_client_ended = segment.to_client.mark != Mark.FUSED
        for tap in self._taps.values():
            if connection.taps & tap.bit:
                tap.over.append(end)

    def run(self) -> None:
        """Tells the taps what has come to an end. Not one by one: a server with thousands of
        connections may have died."""
        for tap in list(self._taps.values()):
            while tap.over:
                self._tell(tap, TapClosed(tap.over[:A_PACKET]))
                del tap.over[:A_PACKET]

    # -- words ----------------------------------------------------------------------

    def _introduce(self, tap: _Tap, client: Client) -> None:
        """Hands a process its user's capture ring of this tap, which is made if need be."""
        if client in tap.introduced:
            return
        with contextlib.suppress(OSError):  # no descriptors: it will ask
            uid = client.credentials.uid
            cells = tap.cells(uid)
            if uid not in tap.captures:
                tap.captures[uid] = make_capture_ring(cells, tap.request.snap)
                self._tell(tap, TapCapture(uid, cells), tap.captures[uid])
            message = pack_tap(TapRing(tap.slot, cells))
            client.send(message, (tap.captures[uid],))
            tap.introduced.add(client)

    def _tell(self, tap: _Tap, event: TapEvent, fd: int | None = None) -> None:
        fds = () if fd is None else (fd,)
        try:
            tap.client.send(self._encoder.encode(event), fds)
        except OSError as error:
            tap.client.fail(f"can't be sent a capture ring ({error.strerror})")


def _described(
    connection: Connection,
    ends: dict[Endpoint, End],
    paired: int,
    heads: tuple[int, int] | None,
    client_end: Endpoint | None = None,
) -> TapConnection:
    """`heads`: how far both rings have come; None: it is just being paired."""
    name = connection.name
    client = client_end or connection.client_end or name.low
    server = name.other(client)
    to_server, to_client = heads or (0, 0)
    return TapConnection(
        id=connection.id,
        family="ipv4" if name.low.is_ipv4 else "ipv6",
        client=end_row(client, ends.get(client)),
        server=end_row(server, ends.get(server)),
        time=paired,
        fresh=heads is None,
        to_server=to_server,
        to_client=to_client,
    )
