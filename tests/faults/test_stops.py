"""SIGSTOP and SIGKILL at each step: of either end at each call that the library makes, of the
broker at each of its own."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from faults.control import Control, Order, Site, Special
from faults.dialogs import Conditions, Outcome, Stage, Waker
from faults.sites import places
from sessions import Session

SEED, SAMPLE = 6, 6
SCENARIOS = ("blocking", "in_a_set", "forked", "back_to_tcp", "nested_set", "half_closed")
PAIRING = ("recv", "memfd_create", "socketpair", "sendmsg", "pwrite64", "close", "epoll_wait")
"""Calls of the broker between which all steps of pairing lie."""
STOPPED = 1.5
"""Seconds for which a broker stays stopped."""
ENDS = re.compile(
    r"(fused\n|(warm )?(connect|send|receive|recv|shutdown|waiting): .*\n|at the end: .*\n"
    r"|end of stream after .*\n|left: .*\n|(the child )?ended with .*\n)*"
)
"""What an end may say whose peer has been killed."""
QUIET = ("--idle-exit", "0", "--log-level", "error")


def plain_words(stage: Stage, scenario: str) -> tuple[str, str]:
    return stage.act(Session({}, None), scenario).transcript


Step = tuple[str, Order]


def steps(
    stage: Stage, session: Session, library: Path, special: Special, all_faults: bool
) -> list[Step]:
    """Each place in the library from which calls come: the first one there of any end, and the
    second, which most often is the other end's."""
    found: dict[tuple[Site, int], Step] = {}
    for scenario in SCENARIOS if all_faults else SCENARIOS[:2]:
        calls = stage.act(session, scenario).calls
        for place in places(library, calls):
            for nth in (1, 2):
                found[place.site, nth] = scenario, Order(*place.site, special, nth)
    every = list(found.values())
    return every if all_faults else random.Random(SEED).sample(every, SAMPLE)


@pytest.mark.timeout(3600)
def test_an_end_that_is_stopped_at_any_call_goes_on(
    stage: Stage, lazily_fused: Session, library: Path, all_faults: bool
) -> None:
    expected = {scenario: plain_words(stage, scenario) for scenario in SCENARIOS}

    def act(step: Step) -> int:
        outcome = stage.act(lazily_fused, step[0], Conditions(step[1]))
        assert outcome.transcript == expected[step[0]], step
        return outcome.fired

    with ThreadPoolExecutor(4) as pool:
        stops = sum(pool.map(act, steps(stage, lazily_fused, library, Special.STOP, all_faults)))
    print(f"{stops} stops of an end")
    assert stops


@pytest.mark.timeout(3600)
def test_an_end_that_is_killed_at_any_call_is_missed(
    stage: Stage, lazily_fused: Session, library: Path, all_faults: bool
) -> None:
    """The other one sees the end of the stream or an error, after nothing but right bytes."""
    broker = lazily_fused.broker
    assert broker is not None
    before = broker.descriptors()

    def act(step: Step) -> int:
        outcome = stage.act(lazily_fused, step[0], Conditions(step[1], at_both=False))
        assert ENDS.fullmatch(outcome.client), (step, outcome)
        return outcome.fired

    with ThreadPoolExecutor(4) as pool:
        kills = sum(pool.map(act, steps(stage, lazily_fused, library, Special.KILL, all_faults)))
    print(f"{kills} kills of an end")
    assert kills
    eventually(lambda: broker.descriptors() <= before, "the broker lets go")


def act_with(
    stage: Stage, session: Session, library: Path, scenario: str, function: str, special: Special
) -> Outcome:
    """The server meets that at the one call of this function."""
    calls = stage.act(session, scenario).calls
    (place,) = (p for p in places(library, calls) if p.functions[0] == function)
    order = Order(*place.site, special)
    outcome = stage.act(session, scenario, Conditions(order, at_both=False))
    assert outcome.fired == 1
    return outcome


def test_bytes_whose_sender_died_after_tcp_had_taken_them_back_are_not_sent_twice(
    stage: Stage, lazily_fused: Session, library: Path
) -> None:
    """By the process that shared its end."""
    scenario, after = "taken_back_by_a_child", Special.KILL_AFTER
    outcome = act_with(stage, lazily_fused, library, scenario, "send_pieces", after)
    assert outcome.transcript == plain_words(stage, scenario)


def test_a_reader_that_is_killed_while_it_closes_with_bytes_unread_resets(
    stage: Stage, lazily_fused: Session, library: Path
) -> None:
    """Before its library has told the kernel to; seen by a writer that has shut down."""
    scenario = "reset_after_shutdown"
    outcome = act_with(stage, lazily_fused, library, scenario, "abandon_ring", Special.KILL)
    assert outcome.client == plain_words(stage, scenario)[1]
    assert "reset by peer" in outcome.client


def shuffled(orders: list[Order]) -> list[Order]:
    """In an order that is the same in each run. Not each step is taken in each dialog: what one
    pairing needs two calls for, the next may get with one. So tests go on until enough have."""
    return random.Random(SEED).sample(orders, len(orders))


@contextmanager
def broker_of_its_own(folder: Path, injector: Path, control: Control) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(folder / "broker.sock", *QUIET, prefix=control.prefix(injector))
    try:
        yield broker
    finally:
        broker.stop()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("eager", [False, True])
def test_a_broker_that_is_stopped_in_the_midst_of_pairing_is_not_missed(
    library: Path, tmp_path: Path, stage: Stage, all_faults: bool, eager: bool
) -> None:
    """For seconds, at any of its calls: the programs go on in TCP, and fuse once it goes on."""
    expected = plain_words(stage, "blocking")
    with (
        Control(tmp_path / "control") as control,
        broker_of_its_own(tmp_path, stage.injector, control) as broker,
    ):
        session = Session.under(library, broker, eager=eager)
        before = control.calls_by_name()
        assert stage.act(session, "blocking").fused
        counts = control.calls_by_name() - before
        orders = [
            Order(0, name, Special.STOP, nth)
            for name in PAIRING
            for nth in range(1, counts[name] + 1)
        ]
        stops = 0
        for order in shuffled(orders):
            if stops and not all_faults:
                break
            control.give(order)
            with Waker([broker.pid], STOPPED) as waker:
                assert stage.act(session, "blocking").transcript == expected, order
                deadline = time.monotonic() + 10
                while control.fired() > waker.woken and time.monotonic() < deadline:
                    time.sleep(0.01)
            stops += control.fired()
        control.give(Order(0, "", 0, nth=0))
        print(f"{stops} stops of the broker")
        assert stops
        assert stage.act(session, "blocking").fused


@pytest.mark.timeout(3600)
def test_a_broker_that_is_killed_in_the_midst_of_pairing_is_not_missed(
    library: Path, tmp_path: Path, stage: Stage, all_faults: bool
) -> None:
    expected = plain_words(stage, "blocking")
    orders = [Order(0, name, Special.KILL, nth) for name in PAIRING for nth in (1, 2, 3, 4, 6)]
    kills = 0
    for order in shuffled(orders):
        if kills >= 2 and not all_faults:
            break
        with (
            Control(tmp_path / "control") as control,
            broker_of_its_own(tmp_path, stage.injector, control) as broker,
        ):
            control.give(order)
            outcome = stage.act(Session.under(library, broker, eager=False), "blocking")
            assert outcome.transcript == expected, order
            assert not outcome.complaints, order
            kills += control.fired()
    print(f"{kills} kills of the broker")
    assert kills


def test_a_connection_outlives_an_upgrade_and_the_next_one_is_fused(
    library: Path, tmp_path: Path, stage: Stage
) -> None:
    """The broker ends while bytes go through a ring, and another one takes its place."""
    path, go = tmp_path / "broker.sock", tmp_path / "go"
    broker = BrokerProcess(path, *QUIET)
    session = Session.under(library, broker, eager=False)
    plain = Session({"DIALOG_GO": str(go)}, None)
    session.environment["DIALOG_GO"] = str(go)
    try:
        with ThreadPoolExecutor(1) as pool:
            acting = pool.submit(stage.act, session, "upgraded")
            try:
                live = lambda: any(row.state == "fused" for row in broker.rows())  # noqa: E731
                eventually(live, "it is fused", 30)
                assert broker.stop()[0] == 0
                broker = BrokerProcess(path, *QUIET)
            finally:
                go.touch()
            outcome = acting.result()
        assert outcome.transcript == stage.act(plain, "upgraded").transcript
        (second,) = broker.rows()
        assert second.bytes_to_server > 0, "the new broker has fused nothing"
    finally:
        broker.stop()
