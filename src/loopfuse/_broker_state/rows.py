"""What `ps` says of a connection: the state of its segment in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from loopfuse._errors import SegmentError
from loopfuse._matching import Endpoint
from loopfuse._messages import EndRow, FlowRow, Row, State, WaitRow
from loopfuse._reasons import Reason, code_of
from loopfuse._segments import Direction, Mark, Segment, Waits, read_segment

if TYPE_CHECKING:
    from loopfuse._broker_state.ledger import Connection, End

_DETAILED = (Reason.FIREWALL, Reason.POLICY)
END_OF_LIFE = (Reason.NONE, Reason.PEER_GONE, Reason.PEER_CLOSED, Reason.TOO_LATE)
"""What a connection ends with that was fused as long as it was of use."""


def judge(segment: Segment, declined: int) -> tuple[State, int]:
    """State and reason (0 while fused) of a pair.

    `declined` is what an end has told the broker since the pairing: it may have given
    up one direction, or could not map the segment at all.
    """
    both = (segment.to_server, segment.to_client)
    if any(direction.mark > Mark.ENDED for direction in both):
        return "defused", Reason.CORRUPT
    # One that ended by FIN was fused to its last byte, of which TCP may have got a copy.
    ended = [direction for direction in both if direction.mark == Mark.ENDED]
    defused = [direction for direction in ended if not direction.copied]
    if defused:
        return "defused", _first_reason(defused)
    if ended or any(direction.mark == Mark.FUSED for direction in both):
        return "fused", Reason.NONE
    reason = segment.broker_wish or _first_reason(both) or declined
    if not reason and all(direction.ready for direction in both):
        return "fused", Reason.NONE  # it takes the ring with its next byte
    return "plain", reason


def _first_reason(directions: list[Direction] | tuple[Direction, ...]) -> int:
    told = [direction.reason for direction in directions]
    told += [direction.consumer_reason for direction in directions]
    return next((reason for reason in told if reason), Reason.NONE)


def state_of(connection: Connection) -> tuple[State, int, Segment | None]:
    """State, reason, and what its segment says if it has one that can be read."""
    if not connection.paired:
        return "plain", connection.reason, None
    try:
        segment = read_segment(connection.segment)
    except SegmentError:
        return "defused", Reason.CORRUPT, None
    return *judge(segment, connection.reason), segment


def row_of(connection: Connection, *, counters: bool = False) -> Row:
    """The row of a connection that lives; `counters`: with what its directions counted."""
    state, reason, segment = state_of(connection)
    if segment is None:
        return _row(connection, state, reason, 0, 0)
    row = _row(connection, state, reason, segment.to_server.head, segment.to_client.head)
    if counters:
        row.ring_size = segment.ring_size
        row.to_server = _flow_row(segment.to_server, segment.ring_size)
        row.to_client = _flow_row(segment.to_client, segment.ring_size)
    return row


def _flow_row(direction: Direction, ring_size: int) -> FlowRow:
    unread = min(direction.unread, ring_size)
    reader, writer = direction.reader, direction.writer
    # A flag may outlast the sleep: who was woken otherwise leaves it up, for others.
    live = direction.mark == Mark.FUSED
    return FlowRow(
        direction.messages,
        unread if live else 0,
        _wait_row(reader, sleeping=live and reader.armed and unread == 0),
        _wait_row(writer, sleeping=live and writer.armed and unread > writer.below),
    )


def _wait_row(waits: Waits, *, sleeping: bool) -> WaitRow:
    return WaitRow(
        sleeping,
        waits.sleeps,
        waits.rings,
        waits.spins_paid,
        waits.spins_vain,
        list(waits.wakes),
        waits.wake_ns / 1e9,
    )


def is_fusing(connection: Connection) -> bool:
    """Is it fused, or will it be with its next bytes?"""
    state, reason, _ = state_of(connection)
    return state == "fused" or (connection.paired and state == "plain" and reason == Reason.NONE)


def closed_row(connection: Connection) -> Row:
    """The last row of a pair. Its reason says why it was not fused when it closed; what
    belongs to closing itself is no reason."""
    row = row_of(connection, counters=True)
    if row.state == "fused" or row.reason in [reason.code for reason in END_OF_LIFE]:
        row.reason = None
        row.detail = None
    row.state = "closed"
    return row


def _row(connection: Connection, state: State, reason: int, to_server: int, to_client: int) -> Row:
    name = connection.name
    client = connection.client_end or name.low
    server = name.other(client)
    return Row(
        id=connection.id,
        state=state,
        reason=None if state == "fused" else code_of(reason),
        detail=(connection.detail or None) if reason in _DETAILED else None,
        family="ipv4" if name.low.is_ipv4 else "ipv6",
        client=_end_row(connection, client),
        server=_end_row(connection, server),
        bytes_to_server=to_server,
        bytes_to_client=to_client,
        since=_iso(connection.since),
        netns_cookie=name.netns_cookie,
    )


def _end_row(connection: Connection, endpoint: Endpoint) -> EndRow:
    return end_row(endpoint, connection.ends.get(endpoint))


def end_row(endpoint: Endpoint, end: End | None) -> EndRow:
    """What is known of the end at this address."""
    if end is None:
        return EndRow(None, None, None, endpoint.text(), endpoint.port)
    who = end.client.credentials
    return EndRow(who.pid, end.client.comm, who.uid, endpoint.text(), endpoint.port)


def _iso(moment: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03d}Z"
