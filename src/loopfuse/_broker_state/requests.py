"""The command line's requests, and what the broker answers (see `loopfuse._messages`)."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TypeVar

import msgspec

from loopfuse._broker_state.client import Client
from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.ledger import Connection, Ledger
from loopfuse._broker_state.pairing import Pairing
from loopfuse._broker_state.permission import Permission, may_defuse
from loopfuse._broker_state.rows import is_fusing
from loopfuse._broker_state.taps import Taps
from loopfuse._messages import (
    BrokerStatus,
    DefuseAnswer,
    DefuseReply,
    DefuseRequest,
    DefuseResult,
    ErrorReply,
    PsReply,
    PsRequest,
    Request,
    StatusReply,
    TapRequest,
)
from loopfuse._reasons import Reason

ROWS_A_PACKET = 64
_Item = TypeVar("_Item")


class Requests:
    """Answers them."""

    def __init__(
        self,
        ledger: Ledger,
        pairing: Pairing,
        permission: Permission,
        taps: Taps,
        decisions: Decisions,
        version: str,
        metrics: str | None,
    ) -> None:
        self._ledger = ledger
        self._permission = permission
        self._pairing = pairing
        self._taps = taps
        self._decisions = decisions
        self._version = version
        self._metrics = metrics
        self._start = time.monotonic()
        self._decoder = msgspec.json.Decoder(Request)
        self._encoder = msgspec.json.Encoder()

    def answer(self, client: Client, packet: bytes, clients: int) -> None:
        """Sends the replies to one request."""
        if client.has_queue:
            client.fail("asks more before it has read its answers", "slow-client")
            return
        try:
            request = self._decoder.decode(packet)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            self._send(client, ErrorReply(f"not a request: {error}"))
            return
        if isinstance(request, PsRequest):
            for rows, last in _chunks(self._ledger.rows(counters=request.counters)):
                self._send(client, PsReply(rows, last))
        elif isinstance(request, DefuseRequest):
            for results, last in _chunks(self._defuse(client, request)):
                self._send(client, DefuseReply(results, last))
        elif isinstance(request, TapRequest):
            self._taps.begin(client, request)
        else:
            self._send(client, StatusReply(self._status(clients)))

    def _send(self, client: Client, reply: msgspec.Struct) -> None:
        client.send(self._encoder.encode(reply))

    def _defuse(self, client: Client, request: DefuseRequest) -> list[DefuseAnswer]:
        if not request.all:
            # Looked up once: a packet may name tens of thousands.
            closed = {row.id for row in self._ledger.closed_rows()}
            return [self._defuse_one(client, number, closed) for number in request.ids]
        answers = [
            DefuseAnswer(connection.id, self._order(client, connection))
            for connection in self._ledger
        ]
        return [answer for answer in answers if answer.result == "defused"]

    def _defuse_one(self, client: Client, connection_id: int, closed: set[int]) -> DefuseAnswer:
        connection = self._ledger.get(connection_id)
        if connection is None:
            return DefuseAnswer(
                connection_id, "already" if connection_id in closed else "not-found"
            )
        return DefuseAnswer(connection_id, self._order(client, connection))

    def _order(self, client: Client, connection: Connection) -> DefuseResult:
        if not may_defuse(connection, client.credentials.uid):
            return "not-permitted"
        if not is_fusing(connection):
            return "already"
        connection.wish(Reason.REQUEST)
        self._pairing.given[Reason.REQUEST.code] += 1
        self._decisions.defused(connection, Reason.REQUEST, f"ordered by {client.describe()}")
        return "defused"

    def _status(self, clients: int) -> BrokerStatus:
        states = Counter(str(row.state) for row in self._ledger.rows())
        uptime = time.monotonic() - self._start
        given = dict(self._pairing.given)
        return BrokerStatus(
            self._version,
            os.getpid(),
            uptime,
            clients,
            dict(states),
            given,
            self._permission.policy.source,
            self._permission.policy.describe(),
            self._permission.rules(),
            self._permission.blind(),
            self._metrics,
        )


def _chunks(items: list[_Item]) -> list[tuple[list[_Item], bool]]:
    """Pieces that fit into a packet, each with whether it is the last; one at least."""
    starts = range(0, max(len(items), 1), ROWS_A_PACKET)
    return [
        (items[start : start + ROWS_A_PACKET], start + ROWS_A_PACKET >= len(items))
        for start in starts
    ]
