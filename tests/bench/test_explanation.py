"""A round trip taken apart."""

from __future__ import annotations

import pytest

from bench.made_up import FUSED, PLAIN, cell, report, sample
from loopfuse._bench import session
from loopfuse._bench.explanation import CODE, HANDOFF, RING, SOFTIRQ, WAKEUP, explanation_of
from loopfuse._bench.page import page
from loopfuse._bench.results import Row
from loopfuse._bench.workloads import explaining

TIMES = {
    "self-1-one-cpu": {"tcp": 8.0, "unix": 3.0},
    "explain-1-one-cpu": {"tcp": 12.0, "tcp-poll": 11.0, "loopfuse": 5.0, "loopfuse-sleep": 9.0},
    "explain-1-two-cpu": {"tcp": 100.0, "tcp-poll": 15.0, "loopfuse": 1.0, "loopfuse-sleep": 80.0},
}


def rows(share: float | None = 0.25, **changed: float) -> list[Row]:
    made = [load.row() for load in explaining()]
    assert {row.id for row in made} == set(TIMES)
    for row in made:
        cells = []
        for side, value in TIMES[row.id].items():
            value = changed.get(side, value) if row.id.endswith("two-cpu") else value
            one = sample(value, FUSED if side.startswith("loopfuse") else PLAIN)
            one.softirq_share = share if row.kind == "self" else None
            cells.append(cell(side, one))
        row.cells = cells
    return made


def test_the_parts_of_a_plain_round_trip_make_the_whole() -> None:
    explanation = explanation_of(rows())
    assert explanation is not None
    parts = explanation.bars[0].parts
    assert parts == {CODE: 6, SOFTIRQ: 2, HANDOFF: 7, WAKEUP: 85}
    assert "100 us" in explanation.words and "85 us (85 %)" in explanation.words
    assert "100 times less" in explanation.words


def test_a_fused_round_trip_keeps_the_wake_up_only_if_it_sleeps() -> None:
    explanation = explanation_of(rows())
    assert explanation is not None
    bars = {bar.title: bar.parts for bar in explanation.bars}
    assert bars["loopfuse, two CPUs"] == {RING: 1}
    assert bars["loopfuse, two CPUs, sleeping"] == {RING: 1, WAKEUP: 79}


def test_polling_that_is_quicker_than_one_process_makes_no_negative_part() -> None:
    explanation = explanation_of(rows(**{"tcp-poll": 4.0}))
    assert explanation is not None
    parts = explanation.bars[0].parts
    assert sum(parts.values()) == pytest.approx(100)
    assert min(parts.values()) >= 0


def test_without_all_figures_there_is_none() -> None:
    assert explanation_of(report().rows) is None
    assert explanation_of(rows(share=None)) is None
    incomplete = rows()
    incomplete[2].cells = incomplete[2].cells[:2]
    assert explanation_of(incomplete) is None


def test_the_page_shows_it() -> None:
    made = report()
    made.explanation = explanation_of(rows())
    assert "What a round trip is made of" in page(made)


def test_what_it_is_made_from_is_measured_with_proof() -> None:
    plan = session.plan(quick=True, only=[], rounds=1, seconds=0.02, explain=True)
    assert plan.steps == 2 + 5 + 5
    found = session.run(plan, lambda _done, _what: None)
    assert not found.incomplete()
    assert "4 of 4 measurements of loopfuse were fused" in found.proof()
    alone = found.rows[0].cell("tcp")
    assert alone is not None and alone.samples[0].sleeps is not None
    assert found.explanation is not None or found.left_out[-1].name == "explanation"
