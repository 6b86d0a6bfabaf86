"""A socket that moves to another program or process loses no byte on the way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_transcripts import scenarios, transcript

from conftest import PROGRAMS
from sessions import Session

MOVERS = PROGRAMS / "movers.py"
PAGE = Path(__file__).parent.parent.parent / "docs" / "semantics" / "descriptors.md"


def is_last_words(name: str) -> bool:
    """Those have a file of their own, to be run beside this one: test_last_words.py."""
    return name.startswith("last_words")


@pytest.mark.parametrize("name", [name for name in scenarios(MOVERS) if not is_last_words(name)])
def test_the_transcript_is_the_same(
    name: str, plain: Session, fused: Session, programs: Path
) -> None:
    compare(name, plain, fused, programs)


def compare(name: str, plain: Session, fused: Session, programs: Path) -> None:
    warm = not fused.eager
    expected, _ = transcript(name, (plain, plain), warm, programs, MOVERS)
    assert "(hung)" not in expected, expected
    assert "Traceback" not in expected, expected
    got, port = transcript(name, (fused, fused), warm, programs, MOVERS)
    assert got == expected
    if warm:
        assert fused.fused_rows(port), "it was never fused"


def test_every_scenario_is_listed() -> None:
    """By its name, or by the part before or after an ellipsis."""
    listed = re.findall(r"`([a-z0-9_…]+)`", PAGE.read_text())
    patterns = [re.compile(name.replace("…", ".+")) for name in listed]
    for name in scenarios(MOVERS):
        assert any(pattern.fullmatch(name) for pattern in patterns), name
