"""What it costs to be watched: one connection all the time, and watchers that really watch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from broker_fixtures import eventually
from holdings import has_state
from loopfuse._bench import processes, watching
from loopfuse._bench.children import Child, running
from loopfuse._bench.place import prepared
from loopfuse._bench.sides import LOOPFUSE, LOOPFUSE_METRICS, LOOPFUSE_TOP, Side, sides_of
from loopfuse._bench.workloads import Workload
from loopfuse._cli.top import command as top
from loopfuse._errors import BenchError


@pytest.fixture(scope="module")
def watched() -> Iterator[watching.Row]:
    pytest.importorskip("prometheus_client")
    with prepared() as place, watching.watchable(place, Workload("watching", 1), 0.01) as row:
        yield row


def test_a_measurement_is_no_shorter_than_tops_own_interval() -> None:
    delay = next(option for option in top.params if option.name == "delay")
    assert delay.default == watching.TOP_LOOKS


@pytest.mark.parametrize("side", sides_of("watching")[1:], ids=lambda side: side.key)
def test_the_connection_is_fused_beside_each_watcher(watched: watching.Row, side: Side) -> None:
    sample = watched.measure(side)
    assert sample.proof.holds and sample.proof.fused == 1, sample.proof.words
    assert sample.value > 0


def test_nobody_watches_unless_it_is_their_turn(watched: watching.Row) -> None:
    watchers = (watched.top, watched.tap)
    stop(*watchers)
    watched.top.drain()
    before = [processes.cpu_clock(child.pid) for child in watchers]
    watched.measure(LOOPFUSE)
    assert [processes.cpu_clock(child.pid) for child in watchers] == before
    assert watched.top.drain() == b""


def stop(*children: Child) -> None:
    for child in children:
        child.pause()
        eventually(lambda child=child: has_state(child.pid, "T"), "it stands still")  # type: ignore[misc]


@pytest.mark.parametrize("side", [LOOPFUSE_TOP, LOOPFUSE_METRICS], ids=lambda side: side.key)
def test_a_watcher_that_sees_nothing_is_an_error(watched: watching.Row, side: Side) -> None:
    stop(watched.top)
    watched.top.drain()
    with pytest.raises(BenchError, match=r"has shown nothing|no scrape has brought"):
        watched.scrapes.clear()
        watched._has_watched(side)


def test_a_paused_child_is_ended_like_any_other() -> None:
    with running([sys.executable, "-c", "input()"], os.environ) as child:
        child.pause()
    assert child.ended()
    assert child._process.returncode == -15
