"""What is shown, and in which order. Pure: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from loopfuse._messages import EndRow, where
from loopfuse._top.watching import Flow, Line, Waiting


class Sort(NamedTuple):
    """An order to sort by, greatest first but for the number."""

    name: str
    key: str
    """What to press for it."""
    of: Callable[[Line], float]


SORTS = (
    Sort("rate", "r", lambda line: line.rate),
    Sort("bytes", "b", lambda line: line.bytes),
    Sort("messages", "m", lambda line: line.messages),
    Sort("wake", "w", lambda line: line.wake or 0.0),
    Sort("fill", "f", lambda line: line.fill),
    Sort("id", "i", lambda line: -line.row.id),
)
SORT_NAMES = tuple(sort.name for sort in SORTS)


def sort_named(name: str) -> Sort:
    return next(sort for sort in SORTS if sort.name == name)


def arrange(
    lines: Iterable[Line], sort: Sort, text: str = "", *, pairs: bool = False
) -> list[Line]:
    """The lines that have `text` in them, sorted, ties by their bytes; `pairs`: one for each two
    programs."""
    wanted = [line for line in lines if matches(line, text)]
    if pairs:
        wanted = merge(wanted)
    return sorted(wanted, key=lambda line: (-sort.of(line), -line.bytes, line.row.id))


def matches(line: Line, text: str) -> bool:
    """Has one of its fields, as a person sees them, the text in it? Case does not matter."""
    row = line.row
    fields = [str(row.id), row.state, row.reason or "", program(row.client), program(row.server)]
    fields += [f"{end.addr}:{end.port} {end.pid}" for end in (row.client, row.server)]
    return text.lower() in "\n".join(fields).lower()


def program(end: EndRow) -> str:
    """Who an end is: its program, or else where it is."""
    return end.comm or where(end)


def merge(lines: list[Line]) -> list[Line]:
    """One line for each two programs, whatever processes of theirs."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        names = (program(line.row.client), program(line.row.server))
        groups.setdefault(names, []).append(line)
    return [_sum(group) for group in groups.values()]


def _sum(lines: list[Line]) -> Line:
    # The fused one speaks for all, if there is one.
    first = next((line for line in lines if line.flows), lines[0])
    return Line(
        first.row,
        len(lines),
        sum(line.bytes for line in lines),
        _sum_flows([line.to_server for line in lines if line.to_server]),
        _sum_flows([line.to_client for line in lines if line.to_client]),
    )


def _sum_flows(flows: list[Flow]) -> Flow | None:
    if not flows:
        return None
    return Flow(
        sum(flow.bytes for flow in flows),
        sum(flow.messages for flow in flows),
        max(flow.unread for flow in flows),
        _sum_waits([flow.reader for flow in flows]),
        _sum_waits([flow.writer for flow in flows]),
    )


def _sum_waits(waits: list[Waiting]) -> Waiting:
    return Waiting(
        sum(w.sleeps for w in waits),
        sum(w.rings for w in waits),
        sum(w.spins_paid for w in waits),
        sum(w.spins_vain for w in waits),
        tuple(map(sum, zip(*(w.wakes for w in waits), strict=False))),
        sum(w.wake_seconds for w in waits),
        any(w.sleeping for w in waits),
    )
