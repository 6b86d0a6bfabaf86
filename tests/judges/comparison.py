"""What passes on plain TCP must pass fused: the one question that all judges are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from judges.downloads import Unavailable
from judges.verdict import Verdict, lost
from sessions import Session


def compare(
    judge: Callable[[str, Session], Verdict],
    part: str,
    plain: Session,
    fused: Session,
    *,
    without_tcp: bool = False,
) -> None:
    """Fails the test where a part of a suite tells fused from plain."""
    with _or_skip():
        expected, got = judge(part, plain), judge(part, fused)
        failed = lost(expected, got)
        if failed:
            # Some fail now and then on a busy machine: what fails again is ours.
            failed &= lost(expected, judge(part, fused))
    assert not failed, f"{part}: pass plain and fail fused: {sorted(failed)}"
    assert expected.passed, f"{part}: nothing passes on plain TCP"
    assert got.fused or without_tcp, f"{part}: nothing was fused"


@contextmanager
def _or_skip() -> Iterator[None]:
    try:
        yield
    except Unavailable as why:
        # In CI too: whether others still offer what they wrote is no fault of this commit.
        pytest.skip(str(why))
