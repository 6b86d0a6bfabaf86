"""How a run measured, in words for whoever reads its figures."""

from __future__ import annotations

from collections.abc import Sequence

from loopfuse._bench.results import Fact, Row


def method_of(rounds: int, seconds: float, rows: Sequence[Row]) -> list[Fact]:
    return [
        Fact(
            "rounds",
            f"{rounds}, each of {seconds:g} s a cell after a warm-up; the sides take "
            "turns in every round, backwards in every other one; figures are medians of the "
            "rounds, with the lowest and the highest",
        ),
        Fact(
            "proof",
            "after each measurement the broker is asked what was fused and how much payload "
            "took the rings; plain programs must not have the library mapped; figures that fail "
            "this are thrown away and named",
        ),
        Fact(
            "checks",
            "the measuring program compares bytes before and after, and in epoll all of them",
        ),
        Fact(
            "CPU time",
            "of both processes by the kernel's clocks, for one unit of work; softirqs that "
            "interrupt others are not in it",
        ),
        Fact(
            "placement",
            "wherever the scheduler puts the two ends; polling ends get a CPU each",
        ),
        Fact(
            "busy pairs",
            "their work together from the first start to the last end; CPU time of all of them "
            "and of the broker",
        ),
        Fact(
            "idle",
            "both ends asleep in one call each, and looked at from outside: all of their CPU "
            "time, and the broker's",
        ),
        Fact(
            "single calls",
            "the median of batches of calls that never wait: the whole call, the kernel's part "
            "included; client and server have a CPU each, and the server is never under loopfuse",
        ),
        Fact(
            "watching",
            "one connection all the time, in turns of two seconds at least, with nobody watching "
            "(twice: the second column tells the noise), beside each watcher; whoever is not "
            "to watch is stopped, the broker too while nobody is",
        ),
        Fact(
            "pairing",
            "loopfuse's default: a connection is fused after a few I/O calls, so short "
            "connections stay plain TCP",
        ),
        *_counting(rows),
    ]


def _counting(rows: Sequence[Row]) -> list[Fact]:
    samples = [sample for row in rows for cell in row.cells for sample in cell.samples]
    ways = sorted({sample.counting for sample in samples if sample.counting is not None})
    return (
        [Fact("instructions", f"of single calls, with the loop around them; {'; '.join(ways)}")]
        if ways
        else []
    )
