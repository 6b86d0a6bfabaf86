"""``bench --explain``: what a plain round trip is made of, and what of that fusing removes.

Nothing in the kernel is instrumented. The same byte goes there and back in ways of which each
has one part more than the one before:

    both ends in one process     the code: system calls, TCP out; and in the softirq, which
                                 the sending CPU runs before send() returns, the queue of
                                 the loopback device and TCP in
    two CPUs, both polling       and the hand-off: the other CPU notices, and fetches what
                                 the first one wrote
    two CPUs, both sleeping      and two sleeps, two wake-ups

How much of the code ran in softirqs is what the kernel's tick found that CPU doing. Times are
medians of single round trips: what else runs on the machine does not stretch most of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from loopfuse._bench.results import Bar, Explanation, Row
from loopfuse._bench.statistics import latency_of
from loopfuse._bench.table import figure

CODE = "protocol code in send and recv"
SOFTIRQ = "queue and protocol code in softirqs"
HANDOFF = "hand-off between CPUs"
WAKEUP = "sleep and wake-up"
RING = "ring"
PARTS = (RING, CODE, SOFTIRQ, HANDOFF, WAKEUP)
"""In the order in which they are stacked."""


def explanation_of(rows: Sequence[Row]) -> Explanation | None:
    """None if a figure is missing that it takes."""
    found = {
        name: _median(rows, row, side)
        for name, row, side in (
            ("alone", "self-1-one-cpu", "tcp"),
            ("plain", "explain-1-two-cpu", "tcp"),
            ("polled", "explain-1-two-cpu", "tcp-poll"),
            ("fused", "explain-1-two-cpu", "loopfuse"),
            ("asleep", "explain-1-two-cpu", "loopfuse-sleep"),
            ("together", "explain-1-one-cpu", "tcp"),
            ("fused_together", "explain-1-one-cpu", "loopfuse"),
        )
    }
    share = _softirq_share(rows)
    known = {name: value for name, value in found.items() if value}
    return _explain(known, share) if share is not None and len(known) == len(found) else None


def _explain(us: dict[str, float], share: float) -> Explanation:
    alone, plain, polled = us["alone"], us["plain"], us["polled"]
    fused, asleep, together = us["fused"], us["asleep"], us["together"]
    # On two CPUs the answer is under way before send() returns: less than all of the code
    # may lie between question and answer.
    visible = min(alone, polled)
    code, softirq = visible * (1 - share), visible * share
    handoff, wakeup = polled - visible, max(0.0, plain - polled)
    bars = [
        Bar("TCP, two CPUs, sleeping", _parts(code, softirq, handoff, wakeup)),
        Bar("TCP, two CPUs, polling", _parts(code, softirq, handoff)),
        Bar("TCP, one process", _parts(alone * (1 - share), alone * share)),
        Bar(
            "TCP, one CPU, sleeping",
            _parts(alone * (1 - share), alone * share, 0.0, max(0.0, together - alone)),
        ),
        Bar("loopfuse, two CPUs, sleeping", {RING: fused, WAKEUP: max(0.0, asleep - fused)}),
        Bar("loopfuse, two CPUs", {RING: fused}),
        Bar("loopfuse, one CPU", {RING: us["fused_together"]}),
    ]
    percent = {
        name: f"{figure(part)} us ({100 * part / plain:.0f} %)"
        for name, part in ((CODE, code), (SOFTIRQ, softirq), (HANDOFF, handoff), (WAKEUP, wakeup))
    }
    overlap = "" if handoff else ", hidden behind the code that both CPUs run at once"
    words = (
        f"A plain round trip of one byte between two CPUs takes {figure(plain)} us here (the "
        f"medians of single round trips). {percent[CODE]} of that are protocol code that the two "
        f"programs run in send() and recv(); {percent[SOFTIRQ]} the loopback device's queue and "
        "the receiving half of TCP, in softirqs that run before send() returns; "
        f"{percent[HANDOFF]} the hand-off to the other CPU{overlap}; {percent[WAKEUP]} putting "
        f"both programs to sleep and waking them. Polling would save only the last: "
        f"{figure(polled)} us are left. Fusing removes the first three, code, queue and hand-off "
        "of TCP, and puts a ring in their place; and while the other end answers sooner than a "
        f"sleep would take, it waits without sleeping: {figure(fused)} us, "
        f"{figure(plain / fused)} times less. When the other end takes longer, sleep and wake-up "
        f"stay: a fused round trip that never spins takes {figure(asleep)} us. With both programs "
        f"on one CPU a wake-up is a mere switch: {figure(together)} us plain, "
        f"{figure(us['fused_together'])} us fused."
    )
    return Explanation(bars, words)


def _parts(
    code: float, softirq: float, handoff: float = 0.0, wakeup: float = 0.0
) -> dict[str, float]:
    parts = {CODE: code, SOFTIRQ: softirq, HANDOFF: handoff, WAKEUP: wakeup}
    return {name: part for name, part in parts.items() if part or name in (CODE, SOFTIRQ)}


def _median(rows: Sequence[Row], id: str, side: str) -> float | None:
    for row in rows:
        cell = row.cell(side) if row.id == id else None
        if cell is not None and cell.value is not None:
            latency = latency_of(cell)
            return latency.p50 if latency else None
    return None


def _softirq_share(rows: Sequence[Row]) -> float | None:
    """The mean over all rounds: ticks are few."""
    cells = [cell for row in rows if row.kind == "self" and (cell := row.cell("tcp"))]
    shares = [s.softirq_share for cell in cells for s in cell.samples]
    known = [share for share in shares if share is not None]
    return statistics.mean(known) if known else None
