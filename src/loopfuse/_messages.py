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


class DefuseRequest(msgspec.Struct, tag="defuse", tag_field="request", forbid_unknown_fields=True):
    """Asks for connections to go back to TCP: those listed, or all that the asker may."""

    ids: list[int] = []
    all: bool = False


class StatusRequest(msgspec.Struct, tag="status", tag_field="request", forbid_unknown_fields=True):
    """Asks how the broker is."""


Request = PsRequest | DefuseRequest | StatusRequest


class EndRow(msgspec.Struct):
    """One end of a connection. An end that did not claim is known by address only."""

    pid: int | None
    comm: str | None
    uid: int | None
    addr: str
    port: int


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


class PsReply(msgspec.Struct):
    rows: list[Row]
    last: bool


class DefuseAnswer(msgspec.Struct):
    id: int
    result: DefuseResult


class DefuseReply(msgspec.Struct):
    results: list[DefuseAnswer]
    last: bool


class StatusReply(msgspec.Struct):
    version: str
    pid: int
    uptime: float
    """Seconds."""
    clients: int
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
    last: bool = True


class ErrorReply(msgspec.Struct):
    """The request could not be understood."""

    error: str
    last: bool = True
