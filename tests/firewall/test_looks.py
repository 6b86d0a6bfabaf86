"""When the broker looks at rules of whose changes the kernel tells nobody
(src/loopfuse/_broker_state/firewall.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from loopfuse._broker_state import firewall
from loopfuse._broker_state.firewall import INTERVAL, LONGEST, Firewall
from loopfuse._firewall.packet import Flow
from loopfuse._firewall.watch import Watch

NETNS = 7
BEGIN = 100.0


class Rules:
    """A namespace's, and the clock; notes when somebody looked."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.blind: str | None = None
        self.changes_untold = False
        self.listeners: list[Any] = []
        self.looks: list[float] = []
        self.news = False

    def monotonic(self) -> float:
        return self.now

    def heard(self) -> bool:
        return False

    def poll(self) -> bool:
        self.looks.append(self.now)
        return self.news

    def concerning(self, flow: Flow, ignored: object) -> None:
        pass

    def all(self, ignored: object) -> list[Any]:
        return []


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Rules:
    rules = Rules()
    monkeypatch.setattr(firewall, "time", rules)
    return rules


@pytest.fixture
def wall(rules: Rules) -> Iterator[Firewall]:
    wall = Firewall()
    wall.add(NETNS, cast(Watch, rules))
    yield wall
    wall.close()


def test_nobody_looks_while_nothing_is_fused(rules: Rules, wall: Firewall) -> None:
    assert wall.due(busy=False) is None
    rules.now += 1000
    assert not wall.run(busy=False) and not rules.looks


@pytest.mark.parametrize(("known", "patience"), [(False, LONGEST), (True, INTERVAL)])
def test_pairs_are_protected_from_what_comes_without_a_word(
    rules: Rules, wall: Firewall, known: bool, patience: float
) -> None:
    rules.changes_untold = known
    for number in range(1, 4):
        assert wall.due(busy=True) == BEGIN + number * patience
        rules.now = BEGIN + number * patience
        assert not wall.run(busy=True)
    rules.news = True
    rules.now += patience
    assert wall.run(busy=True) == {NETNS}
    assert len(rules.looks) == 4


def test_a_claim_is_judged_by_what_was_seen_an_interval_ago(rules: Rules, wall: Firewall) -> None:
    rules.news = True
    for now, looks in ((0.9, 0), (1.1, 1), (1.9, 1), (2.2, 2)):
        rules.now = BEGIN + now * INTERVAL
        wall.concerning(NETNS, Flow(True), ())
        assert len(rules.looks) == looks
    assert wall.due(busy=False) == 0.0, "what it has seen concerns those that are fused, too"
    assert wall.run(busy=False) == {NETNS}
    rules.now += INTERVAL
    wall.watchers(NETNS, ())
    assert len(rules.looks) == 3


def test_what_cannot_be_seen_is_not_looked_for(rules: Rules, wall: Firewall) -> None:
    rules.blind = "Operation not permitted"
    assert wall.due(busy=True) is None
    rules.now += 1000
    wall.run(busy=True)
    assert not rules.looks
