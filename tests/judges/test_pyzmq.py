"""pyzmq's tests find no difference: what passes on plain TCP passes fused."""

from __future__ import annotations

import pytest

from judges.comparison import compare
from judges.pyzmq import LONG, SHORT, WITHOUT_TCP, judge
from sessions import Session


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
