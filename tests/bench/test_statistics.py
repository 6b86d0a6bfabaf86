"""Medians, spreads and ratios."""

from __future__ import annotations

import pytest

from bench.made_up import FAILED, FUSED, cell, sample
from loopfuse._bench.results import Spread
from loopfuse._bench.statistics import cpu_of, gain, latency_of, median_of, per_unit, spread


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert spread([3, 1, 2]) == Spread(2, 1, 3)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4)
    assert spread([7]) == Spread(7, 7, 7)


def test_a_gain_is_above_one_where_the_other_is_better() -> None:
    slow, fast = Spread(100, 1, 200), Spread(4, 3, 5)
    assert gain(slow, fast, "less") == pytest.approx(25)
    assert gain(slow, fast, "more") == pytest.approx(0.04)


def test_a_gain_over_nothing_has_no_answer() -> None:
    assert gain(None, Spread(1, 1, 1), "less") is None
    assert gain(Spread(1, 1, 1), None, "less") is None
    assert gain(Spread(0, 0, 0), Spread(1, 1, 1), "more") is None


def test_samples_without_proof_do_not_count() -> None:
    mixed = cell("loopfuse", sample(1, FUSED), sample(1000, FAILED), sample(3, FUSED))
    assert mixed.value == Spread(2, 1, 3)
    latency = latency_of(mixed)
    assert latency is not None and latency.max == 27


def test_a_cell_without_any_proof_has_no_value_and_says_why() -> None:
    unproven = cell("loopfuse", sample(1, FAILED), sample(2, FAILED))
    assert unproven.value is None
    assert unproven.missing == FAILED.words
    assert latency_of(unproven) is None
    assert cpu_of(unproven) is None


def test_percentiles_are_medians_over_rounds_and_the_greatest_is_the_greatest() -> None:
    latency = latency_of(cell("tcp", sample(1), sample(5), sample(2)))
    assert latency is not None
    assert (latency.p50, latency.p99, latency.max) == (2, 4, 45)


def test_cpu_time_is_that_of_both_ends() -> None:
    made = cell("tcp", sample(1), sample(2))
    assert median_of(made, "client_cpu") == 1.5
    assert cpu_of(made) == 2
    assert per_unit(0.5, 1000) == 500
    assert per_unit(0.5, 0) is None
