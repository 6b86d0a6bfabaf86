"""Lines of 80 columns. Pure: nothing here does I/O."""

from __future__ import annotations

from collections import Counter

from loopfuse._messages import Row
from loopfuse._quantities import amount, size, time_span
from loopfuse._top.ordering import program
from loopfuse._top.watching import Line, View

WIDTH = 80
_PROGRAMS = WIDTH - 53
"""What the other columns leave for the programs' names."""


def heading(width: int = WIDTH, *, pairs: bool = False) -> str:
    """Over the columns."""
    return _columns(
        width,
        "COUNT" if pairs else "ID",
        _cut("CLIENT>SERVER", _names(width)),
        ("B/S", "MSG/S", "BYTES", "WAKE", "FILL", "CLI", "SRV"),
    )


def line_text(line: Line, width: int = WIDTH, *, pairs: bool = False) -> str:
    """One line of the table. A connection that is not in its rings says why instead."""
    row = line.row
    number = str(line.connections if pairs else row.id)
    who = _who(program(row.client), program(row.server), _names(width))
    if row.state != "fused" and not line.rate:
        return f"{number:>5} {who} {state_text(row)}"[:width]
    known = bool(line.flows)
    cells = (
        size(line.rate) if known else "",
        amount(line.messages) if known else "",
        size(line.bytes),
        time_span(line.wake) if line.wake is not None else "-",
        f"{line.fill:.0%}" if known else "",
        line.client,
        line.server,
    )
    return _columns(width, number, who, cells)


def state_text(row: Row) -> str:
    """The state of a connection, and why it is in it."""
    return row.state if row.reason in (None, "none") else f"{row.state}: {row.reason}"


def _names(width: int) -> int:
    return max(_PROGRAMS + width - WIDTH, 12)


def _columns(width: int, number: str, who: str, cells: tuple[str, ...]) -> str:
    rate, messages, total, wake, fill, client, server = cells
    text = f"{number:>5} {who} {rate:>6} {messages:>6} {total:>6} {wake:>7}"
    return f"{text} {fill:>4} {client:>5} {server:>5}"[:width].rstrip()


def _who(client: str, server: str, width: int) -> str:
    """Both names; the longer one is cut first."""
    room = width - 1
    half = room // 2
    left = max(half, room - len(server)) if len(client) > half else len(client)
    return _cut(_cut(client, left).rstrip() + ">" + _cut(server, room - left).rstrip(), width)


def printable(text: str) -> str:
    """Names are other people's: nothing in them may move the cursor."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "~"


def summary(view: View) -> list[str]:
    """Two lines over everything."""
    states = Counter(line.row.state for line in view.lines)
    parts = [f"{states[state]} {state}" for state in ("fused", "plain", "defused")]
    first = f"loopfuse top, {view.clock}   " + ", ".join(parts)
    if view.problem:
        return [f"{first[:WIDTH]}", view.problem]
    lines = view.lines
    waking = [line for line in lines if line.wake is not None]
    wake_ups = sum(line.wake_ups for line in waking)
    late = sum((line.wake or 0.0) * line.wake_ups for line in waking)
    doing = Counter(word for line in lines for word in (line.client, line.server))
    second = (
        f"{size(sum(line.rate for line in lines))}B/s, "
        f"{amount(sum(line.messages for line in lines))} messages/s, "
        f"{amount(wake_ups)} wake-ups/s"
    )
    if wake_ups:
        second += f" of {time_span(late / wake_ups)}"
    second += f"; {doing['sleep']} ends sleep, {doing['spin']} spin"
    return [first[:WIDTH], second[:WIDTH] if not view.fresh else "the first look; rates come next"]
