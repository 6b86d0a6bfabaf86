"""Between two looks `loopfuse top` sleeps so that Ctrl-C is always heard soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from loopfuse._top import blocks
from loopfuse._top.ordering import sort_named
from loopfuse._top.source import Source

HEARD_SOON = 1.0


class Clock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("delay", [0.1, 2.5, 3600])
def test_it_never_sleeps_for_long_in_one_go(delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes just before a sleep begins is seen by Python when that has ended."""
    clock = Clock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    source = Source(Path("unused"), lambda: [])
    choice = blocks.Choice(sort_named("rate"), "", False, 0)
    blocks.show(source, choice, delay, 2, lambda _: None)
    assert max(clock.naps) <= HEARD_SOON
    assert sum(clock.naps) == pytest.approx(2 * delay)
