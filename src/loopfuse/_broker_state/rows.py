"""What `ps` says of a connection: the state of its segment in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from loopfuse._errors import SegmentError
from loopfuse._matching import Endpoint
from loopfuse._messages import EndRow, Row, State
from loopfuse._reasons import Reason, code_of
from loopfuse._segments import Direction, Mark, Segment, read_segment

if TYPE_CHECKING:
    from loopfuse._broker_state.ledger import Connection

_DETAILED = (Reason.FIREWALL, Reason.POLICY)
_END_OF_LIFE = (Reason.NONE, Reason.PEER_GONE, Reason.PEER_CLOSED, Reason.TOO_LATE)


def judge(segment: Segment, declined: int) -> tuple[State, int]:
    """State and reason (0 while fused) of a pair.

    `declined` is what an end has told the broker since the pairing: it may have given
    up one direction, or could not map the segment at all.
    """
    both = (segment.to_server, segment.to_client)
    if any(direction.mark > Mark.ENDED for direction in both):
        return "defused", Reason.CORRUPT
    ended = [direction for direction in both if direction.mark == Mark.ENDED]
    if ended:
        return "defused", _first_reason(ended)
    if any(direction.mark == Mark.FUSED for direction in both):
        return "fused", Reason.NONE
    reason = segment.broker_wish or _first_reason(both) or declined
    if not reason and all(direction.ready for direction in both):
        return "fused", Reason.NONE  # it takes the ring with its next byte
    return "plain", reason


def _first_reason(directions: list[Direction] | tuple[Direction, ...]) -> int:
    told = [direction.reason for direction in directions]
    told += [direction.consumer_reason for direction in directions]
    return next((reason for reason in told if reason), Reason.NONE)


def row_of(connection: Connection) -> Row:
    """The row of a connection that lives."""
    if not connection.paired:
        return _row(connection, "plain", connection.reason, 0, 0)
    try:
        segment = read_segment(connection.segment)
    except SegmentError:
        return _row(connection, "defused", Reason.CORRUPT, 0, 0)
    state, reason = judge(segment, connection.reason)
    return _row(connection, state, reason, segment.to_server.head, segment.to_client.head)


def is_fusing(connection: Connection) -> bool:
    """Is it fused, or will it be with its next bytes?"""
    if not connection.paired:
        return False
    row = row_of(connection)
    return row.state == "fused" or (row.state == "plain" and row.reason == Reason.NONE.code)


def closed_row(connection: Connection) -> Row:
    """The last row of a pair. Its reason says why it was not fused when it closed; what
    belongs to closing itself is no reason."""
    row = row_of(connection)
    if row.state == "fused" or row.reason in [reason.code for reason in _END_OF_LIFE]:
        row.reason = None
        row.detail = None
    row.state = "closed"
    return row


def _row(connection: Connection, state: State, reason: int, to_server: int, to_client: int) -> Row:
    name = connection.name
    client = connection.client_end or name.low
    server = name.high if client == name.low else name.low
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
    )


def _end_row(connection: Connection, endpoint: Endpoint) -> EndRow:
    end = connection.ends.get(endpoint)
    if end is None:
        return EndRow(None, None, None, endpoint.text(), endpoint.port)
    who = end.client.credentials
    return EndRow(who.pid, end.client.comm, who.uid, endpoint.text(), endpoint.port)


def _iso(moment: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03d}Z"
