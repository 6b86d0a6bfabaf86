"""Whether a run shows what fusing is meant to give. All by medians of that run; a target whose
figures are missing says so and is neither reached nor missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from loopfuse._bench.results import Cell, Row, TargetResult
from loopfuse._bench.sides import SIDES
from loopfuse._bench.statistics import cpu_of, gain, instructions_of, median_of
from loopfuse._bench.targets import OURS, TARGETS, Target
from loopfuse._bench.workloads import MOST

COLUMNS = ("target", "held against", "required", "measured", "reached")
_ALONE = "many-64-1-1"
_ELSEWHERE = "not measured in this run"
_CROWD = 9000
"""Fewer than these are no ten thousand."""


class _MissingError(Exception):
    """There is no figure, and why."""


def judged(rows: Sequence[Row]) -> list[TargetResult]:
    """All targets; none if no figure of this run concerns any of them."""
    results = [_judge(target, rows) for target in TARGETS]
    return results if any(result.value is not None for result in results) else []


def summary(results: Sequence[TargetResult]) -> str:
    reached = sum(result.reached is True for result in results)
    known = sum(result.reached is not None for result in results)
    due = len(measured(results))
    words = f"{reached} of {known} targets reached"
    if missing := due - known:
        words += f", {missing} without a figure"
    if others := len(results) - due:
        words += f", {others} not measured in this run"
    return words


def measured(results: Sequence[TargetResult]) -> list[TargetResult]:
    """Those that this run was to tell of."""
    return [result for result in results if result.missing != _ELSEWHERE]


def _judge(target: Target, rows: Sequence[Row]) -> TargetResult:
    kind = _FIGURES[target.figure]
    result = TargetResult(
        work=target.work,
        row=target.row,
        against=kind.against or " / ".join(_TITLES[side] for side in target.against),
        required=f"{target.relation} {target.bound:g} {kind.unit}",
    )
    if len(target.against) > 1:
        result.against = f"the best of {result.against}"
    try:
        value, words = kind.of(target, rows)
    except _MissingError as why:
        result.missing = str(why)
        return result
    result.value = value
    result.measured = f"{value:.4g} {kind.unit}{words}"
    result.reached = {
        "at least": value >= target.bound,
        "more than": value > target.bound,
        "at most": value <= target.bound,
    }[target.relation]
    return result


def _row(rows: Sequence[Row], pattern: str) -> Row:
    found = next((row for row in rows if fnmatchcase(row.id, pattern)), None)
    if found is None:
        raise _MissingError(_ELSEWHERE)
    return found


def _cell(row: Row, side: str) -> Cell:
    cell = row.cell(side)
    if cell is None or cell.value is None:
        why = cell.missing if cell is not None else None
        raise _MissingError(f"{_TITLES[side]}: {why or 'never measured'}")
    return cell


def _known(value: float | None) -> float:
    if value is None:
        raise _MissingError("a figure is zero or was not told")
    return value


Found = tuple[float, str]
"""A figure, and words that belong to it."""


def _times(target: Target, rows: Sequence[Row]) -> Found:
    row = _row(rows, target.row)
    ours = _cell(row, OURS).value
    gains = [gain(_cell(row, side).value, ours, row.better) for side in target.against]
    return min(_known(value) for value in gains), ""


def _share(target: Target, rows: Sequence[Row]) -> Found:
    return 1 / _times(target, rows)[0], ""


def _cpu(target: Target, rows: Sequence[Row]) -> Found:
    row = _row(rows, target.row)
    ours, other = (cpu_of(_cell(row, side)) for side in (OURS, *target.against))
    return _known(ours) / _known(other or None), ""


def _call(target: Target, rows: Sequence[Row]) -> Found:
    """Instructions where the kernel's are among them: a call is more than its way there."""
    row = _row(rows, target.row)
    ours, other = _cell(row, OURS), _cell(row, target.against[0])
    if all(median_of(cell, "kernel_instructions") is not None for cell in (ours, other)):
        counted = _known(instructions_of(ours)) / _known(instructions_of(other) or None)
        return counted, " (instructions, the kernel's included)"
    return _share(target, rows)[0], " (time)"


def _crowd(target: Target, rows: Sequence[Row]) -> Found:
    """The largest crowd with one active, which a limit of descriptors can keep below its size."""
    alone = _row(rows, _ALONE)
    sizes = {_size_of(row): row for row in rows if fnmatchcase(row.id, target.row)}
    size = max(sizes, default=0)
    if size < _CROWD:
        more = f": {size:,} connections at most" if size else ""
        raise _MissingError(f"{_ELSEWHERE}{more}")
    of_crowd, of_one = (_cell(row, OURS).value for row in (sizes[size], alone))
    words = "" if size >= MOST else f" ({size:,} connections)"
    return _known(gain(of_crowd, of_one, alone.better)), words


def _size_of(crowd: Row) -> int:
    return int(crowd.id.split("-")[2])


def _memory(target: Target, rows: Sequence[Row]) -> Found:
    row = _row(rows, target.row)
    ours, other = (_cell(row, side).value for side in (OURS, *target.against))
    assert ours is not None and other is not None, "_cell() looks"
    return ours.median - other.median, ""


def _ends(target: Target, rows: Sequence[Row]) -> Found:
    cell = _cell(_row(rows, target.row), OURS)
    return sum(_known(median_of(cell, name)) for name in ("client_cpu", "server_cpu")), ""


def _broker(target: Target, rows: Sequence[Row]) -> Found:
    return _known(median_of(_cell(_row(rows, target.row), OURS), "broker_cpu")), ""


@dataclass(frozen=True)
class _Figure:
    unit: str
    of: Callable[[Target, Sequence[Row]], Found]
    against: str | None = None
    """Where that is not just a side."""


_TITLES = {side.key: side.title for side in SIDES}
_FIGURES = {
    "times": _Figure("x", _times),
    "share": _Figure("x", _share),
    "cpu": _Figure("x", _cpu, "TCP: CPU time of all processes"),
    "call": _Figure("x", _call, "the program without the library"),
    "crowd": _Figure("x", _crowd, "1 connection alone: its round trip"),
    "memory": _Figure("KiB", _memory, "TCP: memory beyond that"),
    "ends": _Figure("us a second", _ends, "no CPU time of both ends"),
    "broker": _Figure("us a second", _broker, "no CPU time of the broker"),
}
