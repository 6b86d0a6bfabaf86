"""redis' unit tests find no difference: what passes on plain TCP passes fused."""

from __future__ import annotations

import pytest

from judges.comparison import compare
from judges.redis import LONG, SHORT, judge, read_results
from sessions import Session


@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", SHORT)
def test_what_passes_plain_passes_fused(group: str, plain: Session, eagerly_fused: Session) -> None:
    compare(judge, group, plain, eagerly_fused)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", LONG)
def test_what_passes_plain_passes_fused_at_length(
    group: str, plain: Session, eagerly_fused: Session
) -> None:
    compare(judge, group, plain, eagerly_fused)


def test_results_of_one_name_are_told_apart() -> None:
    said = (
        "Testing unit/a\n[\x1b[0;32;49mok\x1b[0m]: GET (1 ms)\n[ok]: GET (2 ms)\n"
        "[err]: SET in tests/unit/a.tcl\nExpected 1\nTesting unit/b\n[ignore]: GET: large\n"
    )
    verdict = read_results(said)
    assert verdict.passed == {"unit/a: GET", "unit/a: GET #2"}
    assert verdict.failed == {"unit/a: SET"}
    assert verdict.skipped == {"unit/b: GET: large"}
