"""CPython's tests find no difference: what passes on plain TCP passes fused."""

from __future__ import annotations

import os

import pytest

from judges.cpython import LONG, SHORT, is_there, judge
from judges.verdict import lost
from sessions import Session

WITHOUT_TCP = {"test_poll", "test_selectors", "test_select"}
"""They talk through pipes and socketpairs; here for their use of poll and select."""


@pytest.fixture(autouse=True)
def suite() -> None:
    if not is_there():
        assert not os.environ.get("CI"), "CPython's tests are missing: scripts/debian test"
        pytest.skip("CPython's tests are not installed: scripts/debian test")


def _compare(module: str, plain: Session, fused: Session) -> None:
    expected, got = judge(module, plain), judge(module, fused)
    failed = lost(expected, got)
    if failed:
        # Some fail now and then on a busy machine: what fails again is ours.
        failed &= lost(expected, judge(module, fused))
    assert not failed, f"{module}: pass plain and fail fused: {sorted(failed)}"
    assert len(expected.passed) > 3
    assert got.fused or module in WITHOUT_TCP, f"{module}: nothing was fused"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", SHORT)
def test_what_passes_plain_passes_fused(
    module: str, plain: Session, eagerly_fused: Session
) -> None:
    _compare(module, plain, eagerly_fused)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("module", LONG)
def test_what_passes_plain_passes_fused_at_length(
    module: str, plain: Session, eagerly_fused: Session
) -> None:
    _compare(module, plain, eagerly_fused)
