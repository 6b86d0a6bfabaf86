"""Each system call that the library makes for its own sake fails, in each way the kernel knows:
the programs do not notice."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from broker_fixtures import BrokerProcess, eventually
from faults.control import Order, Site, Special
from faults.dialogs import SCENARIOS, Conditions, Outcome, Stage
from faults.sites import HANDED_ON, Place, answers, most_times, places
from sessions import Session

SEED, SAMPLE, AT_ONCE = 6, 24, 4
FOUND = {"put_byte", "send_pieces"}
"""Where the library once lost a doorbell, and once bytes. Always tried."""
THOROUGH, BESIDES = 1, 4
"""Of the dialogs that come to a place: in so many every fault, in so many more one."""
MOST_OF_SHARED = 40
"""Where many places call from, one call after the other fails: so many of a dialog."""


class Stand(NamedTuple):
    """A place that a dialog comes to."""

    scenario: str
    eager: bool
    place: Place
    count: int
    """How often."""


class Fault(NamedTuple):
    scenario: str
    eager: bool
    place: Place
    order: Order

    def __str__(self) -> str:
        how = errno.errorcode.get(self.order.error) or Special(self.order.error).name
        policy = "eager" if self.eager else "lazy"
        many = f", {self.order.times} times" if self.order.times > 1 else ""
        which = f"call {self.order.nth}{many}"
        return f"{self.scenario} {policy}: {how} for {self.place}, {which}"


def faults_at(stand: Stand) -> Iterator[Fault]:
    scenario, eager, place, count = stand
    in_turn = set(range(1, min(count, MOST_OF_SHARED) + 1)) if place.is_shared else set()
    for error in answers(place):
        for nth in sorted({1, min(2, count), (count + 1) // 2} | in_turn):
            yield Fault(scenario, eager, place, Order(*place.site, error, nth))
        times = most_times(place.site.name, error)
        if times > 1:
            yield Fault(scenario, eager, place, Order(*place.site, error, 1, times))


def faults_of(stands: Sequence[Stand], rng: random.Random) -> list[Fault]:
    """All faults at each place in a dialog that comes to it, and one in each of some others."""
    by_place: dict[Site, list[Stand]] = {}
    for stand in stands:
        by_place.setdefault(stand.place.site, []).append(stand)
    faults = []
    for same_place in by_place.values():
        rng.shuffle(same_place)
        for stand in same_place[:THOROUGH]:
            faults += faults_at(stand)
        shared = same_place[0].place.is_shared
        for stand in same_place[THOROUGH : None if shared else THOROUGH + BESIDES]:
            faults += rng.sample(
                there := list(faults_at(stand)), min(5 if shared else 1, len(there))
            )
    return faults


class Trial:
    """Runs dialogs and keeps what came of them."""

    def __init__(self, stage: Stage, library: Path, broker: BrokerProcess) -> None:
        self._stage = stage
        self._library = library
        self._sessions = {
            eager: Session.under(library, broker, eager=eager) for eager in (False, True)
        }
        plain = Session({}, None)
        self.plain = {name: stage.act(plain, name).transcript for name in SCENARIOS}
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []

    def stands(self, scenario: str, eager: bool) -> Iterator[Stand]:
        outcome = self._stage.act(self._sessions[eager], scenario)
        assert outcome.transcript == self.plain[scenario]
        assert outcome.fused, f"{scenario} is never fused"
        for place in places(self._library, outcome.calls):
            if place.is_own:
                yield Stand(scenario, eager, place, outcome.calls[place.site])

    def try_out(self, fault: Fault) -> None:
        outcome = self._stage.act(
            self._sessions[fault.eager], fault.scenario, Conditions(fault.order)
        )
        self.counts["dialogs"] += 1
        self.counts["calls failed"] += outcome.fired
        self.counts["fused" if outcome.fused else "declined"] += 1
        self.counts["never came to it"] += not outcome.fired
        if outcome.transcript != self.plain[fault.scenario] or outcome.complaints:
            self.findings.append(f"{fault}: {_difference(outcome)}")
            print(self.findings[-1], flush=True)


def _difference(outcome: Outcome) -> str:
    return f"server {outcome.server!r}, client {outcome.client!r} {outcome.complaints}"


@pytest.mark.timeout(7200)
def test_no_failure_of_its_own_calls_shows(
    stage: Stage, library: Path, session_broker: BrokerProcess, all_faults: bool
) -> None:
    trial = Trial(stage, library, session_broker)
    before = session_broker.descriptors()
    stands = [
        stand
        for scenario in SCENARIOS
        for eager in (False, True)
        for stand in trial.stands(scenario, eager)
    ]
    rng = random.Random(SEED)
    faults = faults_of(stands, rng)
    print(
        f"{len(faults)} faults at {len({stand.place.site for stand in stands})} places", flush=True
    )
    if not all_faults:
        found = [fault for fault in faults if fault.place.functions[0] in FOUND]
        faults = rng.sample(found, len(FOUND) * 3) + rng.sample(faults, SAMPLE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(trial.try_out, faults)):
            if done % 100 == 0:
                print(f"{done} done", flush=True)
    print(f"{dict(trial.counts)}, {len(trial.findings)} findings")
    assert not trial.findings, "\n".join(trial.findings)
    assert trial.counts["never came to it"] < len(faults) / 4
    eventually(lambda: session_broker.descriptors() <= before, "the broker lets go")


def test_the_functions_that_hand_calls_on_are_there() -> None:
    """A function that got another name would have its calls taken for the library's own."""
    csrc = Path(__file__).parents[2] / "csrc"
    source = "".join(file.read_text() for file in csrc.glob("*.c"))
    assert not [name for name in HANDED_ON if f" {name}(" not in source]
