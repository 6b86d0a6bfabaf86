"""What the command line and the broker say to each other: one JSON object a packet, on
the same socket as the binary protocol (docs/protocol.md).

A request gets one or more replies; the last of them has `last` set. The types here are
the schema: msgspec rejects what does not fit and says where.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["fused", "plain", "defused", "closed"]
DefuseResult = Literal["defused", "already", "not-found", "not-permitted"]


class PsRequest(msgspec.Struct, tag="ps", tag_field="request", forbid_unknown_fields=True):
    """Asks for every connection the broker knows."""

    counters: bool = False
    """With what each direction of the fused ones has counted."""


class DefuseRequest(msgspec.Struct, tag="defuse", tag_field="request", forbid_unknown_fields=True):
    """Asks for connections to go back to TCP: those listed, or all that the asker may."""

    ids: list[int] = []
    all: bool = False


class StatusRequest(msgspec.Struct, tag="status", tag_field="request", forbid_unknown_fields=True):
    """Asks how the broker is."""


class TapRequest(msgspec.Struct, tag="tap", tag_field="request", forbid_unknown_fields=True):
    """Asks for the payload of fused connections from now on, until the asker hangs up: those it
    may see, and of these what the lists leave (an empty one leaves all)."""

    ids: list[int] = []
    pids: list[int] = []
    """Processes that hold an end."""
    ports: list[int] = []
    """Of either end."""
    snap: int = 262144
    """Bytes of a record at most."""
    cells: int = 1 << 16
    """Of the capture rings, see docs/tap.md."""


Request = PsRequest | DefuseRequest | StatusRequest | TapRequest


class EndRow(msgspec.Struct):
    """One end of a connection. An end that did not claim is known by address only."""

    pid: int | None
    comm: str | None
    uid: int | None
    addr: str
    port: int


def where(end: EndRow) -> str:
    """Address and port of an end, as people write them."""
    return f"[{end.addr}]:{end.port}" if ":" in end.addr else f"{end.addr}:{end.port}"


class WaitRow(msgspec.Struct):
    """How one end has waited in one direction, since the connection was paired."""

    sleeping: bool
    """It has asked to be rung for, and there is nothing for it: it sleeps, or (for a while)
    did when it last waited."""
    sleeps: int
    rings: int
    """Doorbells that the other end rang for it."""
    spins_paid: int
    spins_vain: int
    wakes: list[int]
    """Wake-ups by how long they took: up to 5, 10, 25, 50, 100 us, 1 ms, 10 ms, and longer."""
    wake_seconds: float
    """All of them together, each from the ring to the sleeper's return."""


class FlowRow(msgspec.Struct):
    """What one direction of a fused connection has counted."""

    messages: int
    """Sends that put bytes into the ring."""
    unread: int
    """Bytes in the ring now."""
    reader: WaitRow
    """The receiving end, waiting for bytes."""
    writer: WaitRow
    """The sending end, waiting for room."""


class Row(msgspec.Struct):
    """One connection, as `loopfuse ps --json` prints it."""

    id: int
    state: State
    reason: str | None
    """A code of `loopfuse._reasons`; None while fused, and if it was until it closed."""
    detail: str | None
    """The very rule, where the reason is `firewall` or `policy`."""
    family: Literal["ipv4", "ipv6"]
    """Of the packets: a v4-mapped IPv6 socket counts as ipv4."""
    client: EndRow
    server: EndRow
    bytes_to_server: int
    """Payload that went through the ring."""
    bytes_to_client: int
    since: str
    """When it was paired, or else first heard of: ISO 8601, UTC."""
    netns_cookie: int
    """SO_NETNS_COOKIE of its network namespace, which tells apart equal addresses."""
    ring_size: int | None = None
    """Bytes of each ring; None, as the next two: never paired, or not asked for."""
    to_server: FlowRow | None = None
    to_client: FlowRow | None = None


class PsReply(msgspec.Struct):
    rows: list[Row]
    last: bool


class DefuseAnswer(msgspec.Struct):
    """What became of one order, as `loopfuse defuse --json` prints it."""

    id: int
    result: DefuseResult


class DefuseReply(msgspec.Struct):
    results: list[DefuseAnswer]
    last: bool


class BrokerStatus(msgspec.Struct):
    """How a broker is, as `loopfuse broker status --json` prints it."""

    version: str
    pid: int
    uptime_seconds: float
    clients: int
    """Programs, and command lines, that are connected to it."""
    states: dict[str, int]
    """How many connections are in each state."""
    reasons: dict[str, int]
    """How often each reason has been given since the broker started."""
    policy: str | None = None
    """The policy file's path."""
    policy_words: str = ""
    firewall: list[str] = []
    """Rules in the broker's own network namespace for which it stands aside, at most 100."""
    firewall_blind: str | None = None
    """Why it can't read such rules; None: it can."""
    metrics: str | None = None
    """HOST:PORT of the metrics that it serves; None: it serves none."""


class StatusReply(msgspec.Struct):
    status: BrokerStatus
    last: bool = True


class TapStarted(msgspec.Struct, tag="started", tag_field="event"):
    """The answer to TapRequest."""

    seen: int
    """Connections that are tapped from now on."""
    foreign: int
    """Those that were asked for, but belong to other users."""


class TapCapture(msgspec.Struct, tag="capture", tag_field="event"):
    """A capture ring has been made; brings its descriptor."""

    uid: int
    """Whose processes write to it."""
    cells: int


class TapConnection(msgspec.Struct):
    """A connection that is tapped from now on."""

    id: int
    family: Literal["ipv4", "ipv6"]
    client: EndRow
    server: EndRow
    time: int
    """CLOCK_REALTIME, ns, when it was paired."""
    fresh: bool
    """It has just been paired: all that it ever carries in rings is seen."""
    to_server: int
    """Bytes that had gone through the ring before, at least."""
    to_client: int


class TapOpened(msgspec.Struct, tag="opened", tag_field="event"):
    connections: list[TapConnection]


class TapEnd(msgspec.Struct):
    """A tapped connection that is over."""

    id: int
    time: int
    """CLOCK_REALTIME, ns, when the broker found out: up to a second late, or more."""
    to_server: int
    """Bytes that went through the ring in all, if both ends were honest; -1: unknown."""
    to_client: int
    to_server_ended: bool
    """Payload went by TCP again after them, or nobody was left to read it."""
    to_client_ended: bool


class TapClosed(msgspec.Struct, tag="closed", tag_field="event"):
    connections: list[TapEnd]


TapEvent = TapStarted | TapCapture | TapOpened | TapClosed


class ErrorReply(msgspec.Struct):
    """The request could not be understood."""

    error: str
    last: bool = True
