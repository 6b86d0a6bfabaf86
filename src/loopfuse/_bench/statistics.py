"""Medians, spreads and ratios of a few rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from loopfuse._bench.results import Better, Cell, Latency, Spread


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest and highest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def summarise(cell: Cell) -> None:
    """Fills in the cell's value from those of its samples that can be believed."""
    good = [sample for sample in cell.samples if sample.proof.holds]
    cell.value = spread([sample.value for sample in good]) if good else None
    if not good and cell.samples:
        cell.missing = cell.samples[-1].proof.words


def gain(base: Spread | None, other: Spread | None, better: Better) -> float | None:
    """How many times better the other median is than the base's; None if that has no answer."""
    if base is None or other is None or base.median <= 0 or other.median <= 0:
        return None
    ratio = other.median / base.median
    return ratio if better == "more" else 1 / ratio


def median_of(cell: Cell, field: str) -> float | None:
    """The median of a field of those samples that have it."""
    values = [getattr(sample, field) for sample in cell.samples if sample.proof.holds]
    known = [float(value) for value in values if value is not None]
    return statistics.median(known) if known else None


def cpu_of(cell: Cell) -> float | None:
    """Microseconds of CPU time for a unit of work, of all processes together."""
    each = [median_of(cell, name) for name in ("client_cpu", "server_cpu", "broker_cpu")]
    known = [value for value in each if value is not None]
    return sum(known) if known else None


def instructions_of(cell: Cell) -> float | None:
    """For a unit of work, in the kernel as well where that could be counted."""
    each = [median_of(cell, name) for name in ("user_instructions", "kernel_instructions")]
    known = [value for value in each if value is not None]
    return sum(known) if known else None


def latency_of(cell: Cell) -> Latency | None:
    """The medians of each percentile over all rounds; of the greatest, the greatest."""
    latencies = [s.latency for s in cell.samples if s.proof.holds and s.latency is not None]
    if not latencies:
        return None

    def over_rounds(name: str) -> float | None:
        values: list[float | None] = [getattr(one, name) for one in latencies]
        known = [value for value in values if value is not None]
        if not known:
            return None
        return max(known) if name == "max" else statistics.median(known)

    return Latency(**{name: over_rounds(name) for name in Latency.__struct_fields__})


def per_unit(seconds: float, units: float) -> float | None:
    """CPU seconds as microseconds for a unit of work."""
    return seconds * 1e6 / units if units > 0 else None
