"""CPython's tests find no difference: what passes on plain TCP passes fused."""

from __future__ import annotations

import os

import pytest

from judges.comparison import compare
from judges.cpython import LONG, SHORT, is_there, judge
from sessions import Session

WITHOUT_TCP = {"test_poll", "test_selectors", "test_select"}
"""They talk through pipes and socketpairs; here for their use of poll and select."""


@pytest.fixture(autouse=True)
def suite() -> None:
    if not is_there():
        assert not os.environ.get("CI"), "CPython's tests are missing: scripts/debian test"
        pytest.skip("CPython's tests are not installed: scripts/debian test")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", SHORT)
def test_what_passes_plain_passes_fused(
    module: str, plain: Session, eagerly_fused: Session
) -> None:
    compare(judge, module, plain, eagerly_fused, without_tcp=module in WITHOUT_TCP)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("module", LONG)
def test_what_passes_plain_passes_fused_at_length(
    module: str, plain: Session, eagerly_fused: Session
) -> None:
    compare(judge, module, plain, eagerly_fused, without_tcp=module in WITHOUT_TCP)
