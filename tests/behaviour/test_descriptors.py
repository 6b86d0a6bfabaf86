"""A socket that moves to another program or process loses no byte on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_transcripts import scenarios, transcript

from conftest import PROGRAMS
from sessions import Session

MOVERS = PROGRAMS / "movers.py"


@pytest.mark.parametrize("name", scenarios(MOVERS))
def test_the_transcript_is_the_same(
    name: str, plain: Session, fused: Session, programs: Path
) -> None:
    warm = not fused.eager
    expected, _ = transcript(name, (plain, plain), warm, programs, MOVERS)
    assert "(hung)" not in expected, expected
    assert "Traceback" not in expected, expected
    got, port = transcript(name, (fused, fused), warm, programs, MOVERS)
    assert got == expected
    if warm:
        assert fused.fused_rows(port), "it was never fused"
