"""All that is known of one connection, in lines of 80 columns. Pure: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from textwrap import wrap
from typing import TypeVar

from loopfuse._messages import EndRow, where
from loopfuse._quantities import amount, size, time_span
from loopfuse._segments import WAKE_BOUNDS
from loopfuse._top.ordering import program
from loopfuse._top.watching import Line, Waiting
from loopfuse._top.wording import WIDTH, printable, state_text

_BAR = 30
_Value = TypeVar("_Value", float, Waiting)


def detail(line: Line) -> list[str]:
    """For a person who wants to know why it is as fast or slow as it is."""
    row = line.row
    lines = [f"connection {row.id}, {state_text(row)}, since {row.since}"]
    if row.detail:
        lines += wrap(printable(row.detail), WIDTH)
    lines += [*_end("client", row.client), *_end("server", row.server), ""]
    if row.to_server is None or row.to_client is None:
        return [*lines, "It has no rings: its bytes travel by TCP."]
    flows = (line.to_server, line.to_client)
    totals = (row.bytes_to_server, row.bytes_to_client)
    counted = (row.to_server, row.to_client)
    lines.append(f"{'':22} {'to the server':>18}  {'to the client':>18}")
    rows: list[tuple[str, list[str]]] = [
        ("payload", [size(total) + "B" for total in totals]),
        ("  a second", [_maybe(flow and flow.bytes, size) for flow in flows]),
        ("messages", [amount(c.messages) for c in counted]),
        ("  a second", [_maybe(flow and flow.messages, amount) for flow in flows]),
        (
            "  bytes in each",
            [
                size(total / c.messages) if c.messages else "-"
                for total, c in zip(totals, counted, strict=True)
            ],
        ),
        (
            f"in the ring of {size(row.ring_size or 0)}B",
            [f"{size(c.unread)}B" for c in counted],
        ),
    ]
    for who, what in (("reader", "reader, for bytes"), ("writer", "writer, for room")):
        waits = [getattr(c, who) for c in counted]
        rates: list[Waiting | None] = [getattr(flow, who) if flow else None for flow in flows]
        rows += [
            (what, ["sleeps now" if w.sleeping else "awake" for w in waits]),
            ("  spins: paid, vain /s", [_maybe(r, _spins) for r in rates]),
            ("  sleeps, rings /s", [_maybe(r, _sleeps) for r in rates]),
            ("  sleeps in all", [amount(w.sleeps) for w in waits]),
        ]
    lines += [f"{name:<22} {a:>18}  {b:>18}" for name, (a, b) in rows]
    return [*lines, "", *_wake_ups(line.waits)]


def _end(side: str, end: EndRow) -> list[str]:
    if end.pid is None:
        return [f"{side}  {where(end)}"]
    who = f"{printable(program(end))}, pid {end.pid}, user {end.uid}"
    return [f"{side}  {who}", f"{'':{len(side)}}  {where(end)}"]


def _maybe(value: _Value | None, words: Callable[[_Value], str]) -> str:
    return "-" if value is None else words(value)


def _spins(waiting: Waiting) -> str:
    return f"{amount(waiting.spins_paid)}, {amount(waiting.spins_vain)}"


def _sleeps(waiting: Waiting) -> str:
    return f"{amount(waiting.sleeps)}, {amount(waiting.rings)}"


def _wake_ups(waits: Iterable[Waiting]) -> list[str]:
    """How long wake-ups took during the interval, as bars."""
    classes = [sum(column) for column in zip(*(w.wakes for w in waits), strict=True)]
    most = max(classes, default=0)
    if not most:
        return ["No wake-ups by doorbell since the last look."]
    names = [f"up to {time_span(bound)}" for bound in WAKE_BOUNDS] + ["longer"]
    return ["wake-ups, from the doorbell to the sleeper's return, a second:"] + [
        f"  {name:<14} {amount(n):>6} {'#' * round(n / most * _BAR)}"
        for name, n in zip(names, classes, strict=True)
    ]
