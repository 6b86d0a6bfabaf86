"""Rows as a broker might send them."""

from __future__ import annotations

from typing import Any

from loopfuse._messages import EndRow, FlowRow, Row, WaitRow


def waits(**changes: Any) -> WaitRow:
    fields: dict[str, Any] = {
        "sleeping": False,
        "sleeps": 0,
        "rings": 0,
        "spins_paid": 0,
        "spins_vain": 0,
        "wakes": [0] * 8,
        "wake_seconds": 0.0,
    }
    return WaitRow(**(fields | changes))


def flow(
    messages: int = 0,
    unread: int = 0,
    reader: WaitRow | None = None,
    writer: WaitRow | None = None,
) -> FlowRow:
    return FlowRow(messages, unread, reader or waits(), writer or waits())


def row(number: int = 1, sent: int = 0, received: int = 0, **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "id": number,
        "state": "fused",
        "reason": None,
        "detail": None,
        "family": "ipv4",
        "client": EndRow(100 + number, "asker", 1000, "127.0.0.1", 40000 + number),
        "server": EndRow(7, "answerer", 1000, "127.0.0.1", 6379),
        "bytes_to_server": sent,
        "bytes_to_client": received,
        "since": "2026-11-25T12:00:00.000Z",
        "netns_cookie": 1,
        "ring_size": 4 << 20,
        "to_server": flow(),
        "to_client": flow(),
    }
    return Row(**(fields | changes))


def plain(number: int = 1, reason: str = "no-counterpart", **changes: Any) -> Row:
    bare = {"ring_size": None, "to_server": None, "to_client": None}
    return row(number, state="plain", reason=reason, **(bare | changes))
