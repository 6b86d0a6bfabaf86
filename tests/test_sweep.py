"""When the broker looks for connections that are over (src/loopfuse/_broker_state/sweep.py)."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from loopfuse._broker_state import sweep
from loopfuse._broker_state.sweep import (
    CALM,
    HINT_DELAY,
    INTERVAL,
    LONGEST,
    LONGEST_UNTOLD,
    Sweep,
)
from loopfuse._matching import Endpoint, Name


class Held:
    """A connection that somebody holds."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.name = Name(0, Endpoint(b"low", number), Endpoint(b"high", number))
        self.ends = {self.name.low: SimpleNamespace(cookie=number)}
        self.paired = False


class World:
    """Ledger, verifier and decisions in one, and the clock; counts sweeps."""

    told = False
    looks_abroad = False
    pairs = 0

    def __init__(self) -> None:
        self.now = 100.0
        self.connections: list[Any] = []
        self.size = 3
        self.swept: list[float] = []
        self.cost = 0.0
        self.dumps = self.lookups = 0
        self.held = True

    def monotonic(self) -> float:
        return self.now

    def __iter__(self) -> Iterator[Any]:
        return iter(self.connections)

    def __len__(self) -> int:
        return self.size

    def forget_all_but(self, used: set[int]) -> None:
        self.swept.append(self.now)
        self.now += self.cost

    def view(self, netns: int) -> World:
        return self

    @property
    def diag(self) -> World:
        return self

    def held_cookies(self) -> set[int]:
        self.dumps += 1
        return {one.ends[one.name.low].cookie for one in self.connections}

    def find(self, *ends: object) -> object:
        self.lookups += 1
        return SimpleNamespace(inode=1) if self.held else None

    def get(self, number: int) -> Held | None:
        return next((one for one in self.connections if one.id == number), None)

    def close(self, connection: Held) -> None:
        self.connections.remove(connection)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(sweep, "time", world)
    return world


def run(sweep: Sweep, world: World, until: float) -> list[float]:
    """Seconds between the sweeps."""
    world.swept = [world.now]
    while (due := sweep.due()) is not None and due <= until:
        world.now = max(world.now, due)
        sweep.run()
    world.now = until
    return [after - before for before, after in zip(world.swept, world.swept[1:], strict=False)]


def made(world: Any) -> Sweep:
    return Sweep(world, world, world)


def test_while_nothing_happens_it_comes_ever_more_seldom(world: World) -> None:
    gaps = run(made(world), world, 2000.0)
    assert gaps[:4] == [INTERVAL, INTERVAL, 2 * INTERVAL, 4 * INTERVAL]
    assert set(gaps[9:]) == {LONGEST}


def test_pairs_alone_which_give_hints_are_looked_at_more_seldom(world: World) -> None:
    world.pairs = world.size
    sweep = made(world)
    assert run(sweep, world, 2000.0)[:4] == [CALM, CALM, 2 * CALM, 4 * CALM]
    sweep.stir()
    world.now += CALM / 2
    sweep.stir()
    assert sweep.due() == 2000.0 + CALM, "whoever goes on talking does not put it off"
    world.size += 1
    assert sweep.due() == 2000.0 + INTERVAL, "one that is no pair may end without a word"


@pytest.mark.parametrize("why", ["told", "looks_abroad"])
def test_what_no_hint_tells_of_is_not_put_off_for_long(world: World, why: str) -> None:
    world.pairs = world.size
    setattr(world, why, True)
    gaps = run(made(world), world, 200.0)
    assert gaps[0] == INTERVAL and gaps[-1] == LONGEST_UNTOLD


def test_a_word_to_the_broker_brings_it_back(world: World) -> None:
    sweep = made(world)
    run(sweep, world, 2000.0)
    sweep.stir()
    assert run(sweep, world, 2002.5) == [INTERVAL, INTERVAL]


def test_a_list_is_no_older_than_an_interval(world: World) -> None:
    sweep = made(world)
    run(sweep, world, 2000.0)
    world.swept.clear()
    sweep.run_for_a_list()
    world.now += INTERVAL / 2
    sweep.run_for_a_list()
    assert world.swept == [2000.0]
    world.now += INTERVAL / 2
    sweep.run_for_a_list()
    assert world.swept == [2000.0, 2000.0 + INTERVAL]


def test_what_it_finds_brings_the_next_one_soon(world: World) -> None:
    world.pairs = world.size
    sweep = made(world)
    run(sweep, world, 2000.0)
    due = sweep.due()
    assert due is not None
    world.now = due

    def one_less(used: set[int]) -> None:
        world.size -= 1

    world.forget_all_but = one_less  # type: ignore[method-assign]
    sweep.run()
    assert sweep.due() == due + INTERVAL


def test_a_table_that_takes_long_to_walk_is_walked_seldom(world: World) -> None:
    sweep = made(world)
    world.cost = 0.5
    assert run(sweep, world, 160.0)[1] == pytest.approx(0.5 + 20 * 0.5)
    sweep.stir()
    due = sweep.due()
    assert due is not None and due > world.swept[-1] + 10


@pytest.mark.parametrize(("many", "dumps"), [(200, 0), (201, 1)])
def test_only_many_are_worth_a_walk_through_the_kernels_table(
    world: World, many: int, dumps: int
) -> None:
    world.connections = [Held(number) for number in range(many)]
    sweep = made(world)
    world.now += INTERVAL
    sweep.run()
    assert world.dumps == dumps
    assert world.lookups == (0 if dumps else many)


def test_without_connections_it_sleeps(world: World) -> None:
    world.size = 0
    assert made(world).due() is None


def test_a_hint_that_comes_long_before_the_close_is_not_forgotten(world: World) -> None:
    world.connections = [Held(1)]
    sweep = made(world)
    sweep.hint([1])
    run(sweep, world, world.now + 3 * HINT_DELAY)
    assert world.lookups and world.connections
    world.held = False
    run(sweep, world, world.now + INTERVAL / 2)  # before the next sweep
    assert not world.connections


def test_hints_of_no_connection_are_not_kept(world: World) -> None:
    world.size = 0
    sweep = made(world)
    sweep.hint(range(1, 1000))
    assert sweep.due() is None


def test_a_hint_that_was_wrong_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.connections = [Held(1)]
    sweep = made(world)
    sweep.hint([1, 1])
    sweep.hint([1])
    monkeypatch.setattr(sweep, "_next", lambda: float("inf"))
    run(sweep, world, 200.0)
    assert world.lookups == 10 and not sweep._hints
    sweep.hint([1])
    run(sweep, world, 201.0)
    assert world.lookups > 10
