"""Several pairs at once."""

from __future__ import annotations

import pytest

from bench.made_up import FAILED, FUSED, PLAIN
from loopfuse._bench import busy
from loopfuse._bench.ends import Measured
from loopfuse._bench.proof import all_of


def measured(start: float, seconds: float) -> Measured:
    return Measured(10, 20, start, seconds, 0.1, 0.1, 0, 100, None)


def test_the_time_of_all_lasts_from_the_first_start_to_the_last_end() -> None:
    assert busy._stretch([measured(5.0, 1.0), measured(5.5, 1.0)]) == pytest.approx(1.5)
    assert busy._stretch([measured(5.0, 2.0), measured(5.5, 1.0)]) == pytest.approx(2)


def test_one_pair_without_proof_is_enough_to_fail() -> None:
    assert all_of([FUSED, FUSED]).holds and all_of([FUSED, FUSED]).fused == 2
    assert all_of([PLAIN, PLAIN]) == PLAIN
    failed = all_of([FUSED, FAILED, FUSED])
    assert not failed.holds and failed.words == FAILED.words
